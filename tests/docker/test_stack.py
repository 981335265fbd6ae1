"""The stack, proved: a study over two workers, one of which is killed, and its data after a restart."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient
from stack import IMAGE, ROOT, Stack, run

pytestmark = [pytest.mark.docker, pytest.mark.timeout(3000)]


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"no {what} within {seconds:g} s"
        time.sleep(1)
    return found


def runs_of(stack: Stack) -> dict[str, Any]:
    """The newest quickstart's runs, by name."""
    client = MlflowClient(stack.mlflow)
    experiment = client.get_experiment_by_name("tdmpc-ray")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    return {run.info.run_name: run for run in runs}


def curve(stack: Stack, run_id: str, metric: str) -> list[tuple[int, float]]:
    history = MlflowClient(stack.mlflow).get_metric_history(run_id, metric)
    return sorted((point.step, point.value) for point in history)


def alive(stack: Stack) -> set[str]:
    """The cluster's nodes, as its head knows them."""
    request = urllib.request.Request(
        f"{stack.ray}/api/v0/nodes", headers={"Authorization": f"Bearer {stack.token}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        nodes = json.load(answer)["data"]["result"]["result"]
    return {node["node_id"] for node in nodes if node["state"] == "ALIVE"}


def test_a_study_outlives_a_killed_worker_and_its_data_a_restart(stack: Stack) -> None:
    nodes = alive(stack)
    assert len(nodes) == 3
    started = time.monotonic()
    job = stack.cli("submit", "experiments/quickstart.yaml", "--address", stack.ray, "--wait")
    try:

        def both_learn() -> bool:
            trials = [run for run in runs_of(stack).values() if run.data.tags["kind"] == "trial"]
            return len(trials) == 2 and all(
                run.data.metrics.get("time/env_steps", 0) >= 1000 for run in trials
            )

        wait_for(lambda: job.poll() is not None or both_learn(), 900, "two trials at 1,000 steps")
        assert job.poll() is None, job.communicate()[0]
        before = runs_of(stack)
        # Its process 1, as the kernel kills it: `docker kill` would count as wanted, and not be mended.
        victim = stack.containers("worker")[0]
        os.kill(victim["State"]["Pid"], signal.SIGKILL)
        killed = time.monotonic()
        wait_for(lambda: restarted(stack, victim["Id"]), 60, "restart of the container")
        wait_for(
            lambda: len(now := alive(stack)) == 3 and now != nodes, 180, "node in place of the killed one"
        )
        back_s = time.monotonic() - killed
        printed, _ = job.communicate(timeout=1800)
    finally:
        if job.poll() is None:
            job.kill()
    assert job.returncode == 0, printed
    took_s = time.monotonic() - started
    print(f"\nstudy: {took_s:.0f} s; the killed worker was back after {back_s:.0f} s")

    runs = runs_of(stack)
    assert {name: run.info.run_id for name, run in runs.items()} == {
        name: run.info.run_id for name, run in before.items()
    }
    check(stack, runs)

    back_up(stack)
    stack.compose("down", "--timeout", "60", timeout=300)
    print(f"stack: healthy again after {stack.up():.0f} s")
    check(stack, runs_of(stack))
    # The head has no record of its jobs any more; their folders are there.
    submitted = next(line for line in printed.splitlines() if line.startswith("submitted: "))
    again = stack.cli("resume", submitted.removeprefix("submitted: "), "--address", stack.ray, "--wait")
    assert "nothing was left to do" in again.communicate(timeout=300)[0]

    stack.compose("down", "--volumes", "--timeout", "60", timeout=300)
    bring_back(stack)
    stack.up()
    check(stack, runs_of(stack))
    said = stack.cli("compare", "tdmpc-ray", "--mlflow-uri", stack.mlflow, "--out", str(stack.folder))
    assert "finger-spin" in said.communicate(timeout=120)[0]


BACKUP = {  # as docs/deploy.md has it: file to what writes it, and what reads it
    "mlflow.sql": (
        ("exec", "-T", "postgres", "pg_dump", "--username=mlflow", "mlflow"),
        ("exec", "-T", "postgres", "psql", "--quiet", "--username=mlflow", "mlflow"),
    ),
    "artifacts.tgz": (
        ("run", "--rm", "--no-deps", "-T", "mlflow", "tar", "cz", "-C", "/mlflow", "."),
        ("run", "--rm", "--no-deps", "-T", "mlflow", "tar", "xz", "-C", "/mlflow"),
    ),
    "results.tgz": (
        ("run", "--rm", "--no-deps", "-T", "head", "tar", "cz", "-C", "/results", "."),
        ("run", "--rm", "--no-deps", "-T", "head", "tar", "xz", "-C", "/results"),
    ),
}


def back_up(stack: Stack) -> None:
    stack.compose("stop", "mlflow", "head", "worker")
    for name, (command, _) in BACKUP.items():
        with (stack.folder / name).open("wb") as file:
            subprocess.run(stack.command(*command), stdout=file, check=True, timeout=300)


def bring_back(stack: Stack) -> None:
    stack.compose("up", "--detach", "--wait", "postgres")
    for name, (_, command) in BACKUP.items():
        with (stack.folder / name).open("rb") as file:
            subprocess.run(
                stack.command(*command), stdin=file, stdout=subprocess.DEVNULL, check=True, timeout=300
            )


def restarted(stack: Stack, container: str) -> bool:
    return any(found["Id"] == container and found["RestartCount"] for found in stack.containers("worker"))


def check(stack: Stack, runs: dict[str, Any]) -> None:
    """Runs, params, curves and the figure are there."""
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    trials = [run for run in runs.values() if run.data.tags["kind"] == "trial"]
    (study,) = (run for run in runs.values() if run.data.tags["kind"] == "study")
    assert {run.data.params["model_size"] for run in trials} == {"tiny", "1"}
    for trial in trials:
        steps = [step for step, _ in curve(stack, trial.info.run_id, "eval/return")]
        assert steps == sorted(set(steps)), "a point is there twice"
        assert steps[-1] == 3000
        assert trial.data.metrics["time/env_steps"] == 3000
    files = {file.path for file in MlflowClient(stack.mlflow).list_artifacts(study.info.run_id)}
    assert any(file.endswith(".png") for file in files), files


def test_nothing_listens_beyond_this_machine(stack: Stack) -> None:
    for service in ("postgres", "mlflow", "head", "worker"):
        for container in stack.containers(service):
            for published in (container["NetworkSettings"]["Ports"] or {}).values():
                assert all(at["HostIp"] == "127.0.0.1" for at in published or []), service


@pytest.mark.parametrize(("origin", "status"), [("lab7", 200), ("evil", 403)])
def test_pages_of_another_name_work_where_it_is_allowed(stack: Stack, origin: str, status: int) -> None:
    headers = {
        "Content-Type": "application/json",
        "Host": "lab7.example.org:5000",
        "Origin": f"http://{origin}.example.org:5000",
    }
    connection = http.client.HTTPConnection(stack.mlflow.removeprefix("http://"), timeout=30)
    connection.request("POST", "/api/2.0/mlflow/experiments/search", '{"max_results": 1}', headers)
    assert connection.getresponse().status == status
    connection.close()


def test_without_the_token_ray_refuses(stack: Stack) -> None:
    with pytest.raises(urllib.error.HTTPError, match=r"401|403"):
        urllib.request.urlopen(f"{stack.ray}/api/jobs/", timeout=30)


def test_a_server_that_refuses_its_name_is_unhealthy(stack: Stack) -> None:
    """MLflow answers 403 to names that it was not told, and 200 to /health all the same."""
    said = run(
        "docker", "run", "--rm", "--env", "TDMPC_RAY_ROLE=mlflow", "--env", "MLFLOW_TRACKING_URI=http://other:5000",
        "--hostname", "other", IMAGE, "sh", "-c",
        "mlflow server --host=0.0.0.0 --port=5000 --workers=1 --backend-store-uri=sqlite:////tmp/a.db"
        " --allowed-hosts=localhost:* >/dev/null 2>&1 &"
        " for i in $(seq 60); do python /opt/health.py | grep 403 && break; sleep 1; done",
        check=False,
    )  # fmt: skip
    assert "HTTP Error 403" in said


def test_compose_has_no_default_secret(engine: None) -> None:
    said = run(
        "docker",
        "compose",
        "--file",
        ROOT / "docker/compose.yaml",
        "--env-file",
        "/dev/null",
        "config",
        check=False,
    )
    assert "set it in docker/.env, see docker/.env.example" in said
