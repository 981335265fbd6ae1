"""Studies on a real cluster: a head that is not this process's, with a job server and a token."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from job_studies import write_study
from ports import free_ports
from processes import family

TOKEN = "a-token-of-more-than-thirty-two-characters"


TOKENS = {"RAY_AUTH_MODE": "token"}


STEPS = 1500


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A cluster of one node that knows nothing of this project: `address`, `folder` with its results."""
    folder = tmp_path_factory.mktemp("head")
    gcs, dashboard, client, agent, agent_grpc, metrics = free_ports(6)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHONPATH"))},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        **TOKENS,
        "RAY_AUTH_TOKEN": TOKEN,
        "TDMPC_RAY_RESULTS": str(folder / "results"),
        "MUJOCO_GL": "egl",
    }
    with tempfile.TemporaryDirectory(prefix="ray") as temporary:  # sockets need a short path
        command = ["ray", "start", "--head", "--block", f"--port={gcs}", f"--dashboard-port={dashboard}"]
        command += [f"--ray-client-server-port={client}", "--num-cpus=2", "--disable-usage-stats"]
        command += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
        command += [f"--dashboard-agent-grpc-port={agent_grpc}"]
        command += ["--object-store-memory=100000000", f"--temp-dir={temporary}"]
        with (folder / "head.log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", dashboard)) == 0:
                    break
            assert process.poll() is None, (folder / "head.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        started = family(process.pid)
        yield SimpleNamespace(address=f"http://127.0.0.1:{dashboard}", folder=folder)
        started += family(process.pid)
        process.terminate()
        process.wait(60)
        for path in started:
            if path.exists():
                os.kill(int(path.name), signal.SIGKILL)


def cli(*args: str, token: str | None = TOKEN) -> SimpleNamespace:
    """Run a command in its own process: Ray keeps a token, or that there is none, for a process's life."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "disabled"} if token is None else TOKENS | {"RAY_AUTH_TOKEN": token}
    command = [sys.executable, "-m", "tdmpc_ray.cli", *args]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    return SimpleNamespace(status=done.returncode, out=done.stdout, err=done.stderr)


@pytest.mark.timeout(900)
def test_a_study_is_submitted_stopped_and_resumed(
    head: SimpleNamespace, tmp_path: Path, mlflow_read: SimpleNamespace, tiny_overrides: dict[str, object]
) -> None:
    at = ("--address", head.address)
    file = write_study(tmp_path, tiny_overrides, STEPS)
    store = f"sqlite:///{head.folder}/results/mlflow.db"
    said = cli("submit", str(file), *at, "--with-code")
    assert said.status == 0, said.err
    job_id = said.out.splitlines()[0].removeprefix("submitted: ")
    said = cli("resume", job_id, *at)
    assert (said.status, said.err) == (2, f"error: {job_id} goes on still: there is nothing to resume\n")
    deadline = time.monotonic() + 300
    while f"/{STEPS:,} steps" not in (said := cli("logs", job_id, *at)).out:
        assert "done after" not in said.out, said.out
        assert time.monotonic() < deadline, said.out
    assert cli("status", job_id, *at).out.startswith(f"{job_id}: RUNNING, begun ")
    said = cli("stop", job_id, *at)
    assert f"{job_id}: STOPPED; go on with: tdmpc-ray resume {job_id}" in said.out, said.err
    assert "stopping: saving 1 trial first" in cli("logs", job_id, *at).out
    runs = mlflow_read.runs(store, "exp")
    assert {run.info.status for run in runs.values()} == {"KILLED"}
    assert all(run.data.tags["ray_submission_id"] == job_id for run in runs.values())
    assert f"{job_id} has ended already" in cli("stop", job_id, *at).err

    said = cli("resume", job_id, *at, "--wait")
    assert said.status == 0, said.out + said.err
    assert f"resuming remote: 1 trial of {STEPS:,} agent steps" in said.out
    runs = mlflow_read.runs(store, "exp")
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    (trial,) = (run for name, run in runs.items() if name.startswith("size="))
    assert trial.data.metrics["time/env_steps"] == STEPS
    listed = cli("list", *at).out.splitlines()
    assert [line.split()[1].rstrip(",") for line in listed] == ["STOPPED", "SUCCEEDED"]

    # A head that was started anew knows no job; its folder of results is there.
    said = cli("resume", f"{job_id}-again-0123af", *at, "--wait", "--with-code")
    assert said.status == 0, said.out + said.err
    assert "nothing was left to do" in said.out


def test_a_failed_study_says_so(head: SimpleNamespace, tmp_path: Path) -> None:
    tracking = {"uri": "http://127.0.0.1:9", "experiment": "exp"}
    file = write_study(tmp_path, {}, 500, tracking=tracking)
    said = cli("submit", str(file), "--address", head.address, "--with-code", "--wait")
    assert said.status == 1
    assert "error: MLflow at http://127.0.0.1:9 cannot be used" in said.out
    last = said.out.splitlines()[-1]
    assert last.endswith(": FAILED: Job entrypoint command failed with exit code 2")


def test_what_is_wrong_is_one_line(head: SimpleNamespace, tmp_path: Path) -> None:
    file = write_study(tmp_path, {}, 500)
    for args, token, problem in (
        (("list", "--address", head.address), None, "refuses us: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"),
        (("status", "nope", "--address", head.address), TOKEN, "has no job 'nope': see `tdmpc-ray list`"),
        (("resume", "nope", "--address", head.address), TOKEN, "has no job 'nope': see `tdmpc-ray list`"),
        (
            ("list", "--address", "http://127.0.0.1:9"),
            TOKEN,
            "no Ray job server answers at http://127.0.0.1:9",
        ),
        (("list", "--address", "head"), TOKEN, "'head' is not the address of a job server: http://HEAD:8265"),
        (("list",), TOKEN, "say which cluster: --address http://HEAD:8265"),
        (
            ("submit", str(file), "--address", head.address, "--with", str(tmp_path / "gone.py")),
            TOKEN,
            f"cannot send {tmp_path}/gone.py: No such file",
        ),
    ):
        said = cli(*args, token=token)
        assert said.status == 2
        assert problem in said.err
        assert len(said.err.splitlines()) == 1
