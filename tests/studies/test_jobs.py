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
from typing import Any

import pytest
import yaml
from processes import family

from tdmpc_ray.cli import main
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.jobs import Jobs
from tdmpc_ray.studies.load import load_study

TOKEN = "a-token-of-more-than-thirty-two-characters"
STEPS = 3000


def free_ports(number: int) -> list[int]:
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A cluster of one node that knows nothing of this project: `address`, `folder` with its results."""
    folder = tmp_path_factory.mktemp("head")
    gcs, dashboard, client, agent, agent_grpc, metrics = free_ports(6)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHONPATH"))},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
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


@pytest.fixture
def authorized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)


def write_study(folder: Path, overrides: dict[str, object], steps: int, **changes: Any) -> Path:
    values = {
        "name": "remote",
        "task": "gym:Pendulum-v1",
        "model_sizes": ["tiny"],
        "steps": steps,
        "set": {**overrides, "data.seed_steps": 100},
        "evaluation": {"every": steps, "episodes": 1},
        "checkpoint": {"every": 200},
        "tracking": {"experiment": "exp"},
        **changes,
    }
    file = folder / "remote.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("authorized")
def test_a_study_is_submitted_stopped_and_resumed(
    head: SimpleNamespace,
    tmp_path: Path,
    mlflow_read: SimpleNamespace,
    tiny_overrides: dict[str, object],
    capfd: pytest.CaptureFixture[str],
) -> None:
    at = ["--address", head.address]
    file = write_study(tmp_path, tiny_overrides, STEPS)
    store = f"sqlite:///{head.folder}/results/mlflow.db"
    assert main(["submit", str(file), *at, "--with-code"]) == 0
    job_id = capfd.readouterr().out.splitlines()[0].removeprefix("submitted: ")
    jobs = Jobs(head.address)
    deadline = time.monotonic() + 300
    while "500/3,000 steps" not in jobs.logs(job_id):
        assert not jobs.get(job_id).has_ended, jobs.logs(job_id)
        assert time.monotonic() < deadline, jobs.logs(job_id)
        time.sleep(0.5)
    with pytest.raises(UserError, match="goes on still"):
        jobs.resume(job_id)
    assert main(["status", job_id, *at]) == 0
    assert capfd.readouterr().out.startswith(f"{job_id}: RUNNING, begun ")
    assert main(["stop", job_id, *at]) == 0
    assert f"{job_id}: STOPPED; go on with: tdmpc-ray resume {job_id}" in capfd.readouterr().out
    assert main(["logs", job_id, *at]) == 0
    assert "stopping: saving 1 trial first" in capfd.readouterr().out
    runs = mlflow_read.runs(store, "exp")
    assert {run.info.status for run in runs.values()} == {"KILLED"}
    assert all(run.data.tags["ray_submission_id"] == job_id for run in runs.values())
    assert main(["stop", job_id, *at]) == 2
    assert f"{job_id} has ended already" in capfd.readouterr().err

    assert main(["resume", job_id, *at, "--wait"]) == 0
    said = capfd.readouterr().out
    assert "resuming remote: 1 trial of 3,000 steps" in said
    runs = mlflow_read.runs(store, "exp")
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    (trial,) = (run for name, run in runs.items() if name.startswith("size="))
    assert trial.data.metrics["time/env_steps"] == STEPS
    assert main(["list", *at]) == 0
    listed = capfd.readouterr().out.splitlines()
    assert [line.split()[1].rstrip(",") for line in listed] == ["STOPPED", "SUCCEEDED"]


@pytest.mark.usefixtures("authorized")
def test_a_failed_study_says_so(
    head: SimpleNamespace, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tracking = {"uri": "http://127.0.0.1:9", "experiment": "exp"}
    file = write_study(tmp_path, {}, 500, tracking=tracking)
    assert main(["submit", str(file), "--address", head.address, "--with-code", "--wait"]) == 1
    out = capfd.readouterr().out
    assert "error: MLflow at http://127.0.0.1:9 cannot be used" in out
    assert out.splitlines()[-1].endswith(": FAILED: Job entrypoint command failed with exit code 2")


def test_who_has_no_token_is_told(head: SimpleNamespace) -> None:
    command = [sys.executable, "-m", "tdmpc_ray.cli", "list", "--address", head.address]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}  # Ray keeps a token for a process's life
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "refuses us: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.usefixtures("authorized")
def test_what_is_wrong_is_one_line(head: SimpleNamespace, tmp_path: Path) -> None:
    jobs = Jobs(head.address)
    with pytest.raises(UserError, match=r"has no job 'nope': see `tdmpc-ray list`"):
        jobs.get("nope")
    with pytest.raises(UserError, match=r"no Ray job server answers at http://127.0.0.1:9: is the"):
        Jobs("http://127.0.0.1:9").all()
    with pytest.raises(UserError, match="'head' is not the address of a job server: http://HEAD:8265"):
        Jobs("head")
    file = write_study(tmp_path, {}, 500)
    with pytest.raises(UserError, match=f"cannot send {tmp_path}/gone.py: No such file"):
        jobs.submit(load_study(file), file, beside=[tmp_path / "gone.py"])
