"""Real parts for the tests of studies: a sqlite store, an MLflow server that can go away, a small Ray."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from tdmpc_ray.studies.tracking.client import connect


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MLflowServer:
    """A real `mlflow server` process that can be stopped and started again on the same store and port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is not None:
            return
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/server.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                # Starts in two thirds of the time without its job runner.
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError((self.folder / "server.log").read_text())

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def first_use(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """What a first study leaves in an empty working folder, with experiment `first`: `folder`, `output`."""
    folder = tmp_path_factory.mktemp("store")
    code = (
        "from tdmpc_ray.studies.tracking.client import *; check_tracking(DEFAULT_URI); "
        "ensure_experiment(connect(DEFAULT_URI), DEFAULT_URI, 'first')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    return SimpleNamespace(folder=folder, output=done.stdout + done.stderr)


@pytest.fixture(scope="session")
def empty_store(first_use: SimpleNamespace) -> Path:
    """A database with MLflow's tables: making them takes seconds, a copy does not."""
    return Path(first_use.folder / "mlflow.db")


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> str:
    """Address of a fresh sqlite store in `tmp_path`."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture(scope="session")
def server_process(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store, folder / "server.db")
    server = MLflowServer(folder)
    yield server
    server.stop()


@pytest.fixture
def server(server_process: MLflowServer) -> MLflowServer:
    """The session's MLflow server, running."""
    server_process.start()
    return server_process


def fake_trial(trial_id: str, **config: Any) -> SimpleNamespace:
    """What the callbacks read of a trial of Tune."""
    return SimpleNamespace(trial_id=trial_id, config=config, status="RUNNING")


class Callbacks:
    """Calls a callback as Tune would, without a study behind it."""

    def __init__(self, callback: Any) -> None:
        self.callback = callback
        self.trials: list[SimpleNamespace] = []

    def start(self, trial: SimpleNamespace) -> None:
        if trial not in self.trials:
            self.trials.append(trial)
        self.callback.on_trial_start(iteration=0, trials=self.trials, trial=trial)

    def result(
        self,
        trial: SimpleNamespace,
        env_steps: int,
        seconds: float = 0.0,
        catching_up: int = 0,
        **report: float,
    ) -> None:
        report = {key.replace("__", "/"): value for key, value in report.items()}
        result = {
            "env_steps": env_steps,
            "catching_up": catching_up,
            "report": report,
            "time_total_s": seconds,
        }
        self.callback.on_trial_result(iteration=0, trials=self.trials, trial=trial, result=result)

    def complete(self, trial: SimpleNamespace) -> None:
        self.callback.on_trial_complete(iteration=0, trials=self.trials, trial=trial)

    def error(self, trial: SimpleNamespace) -> None:
        self.callback.on_trial_error(iteration=0, trials=self.trials, trial=trial)

    def end(self) -> None:
        self.callback.on_experiment_end(trials=self.trials)


@pytest.fixture
def drive() -> Any:
    """`drive(callback)` -> Callbacks; `drive.trial(id, **config)` -> a trial."""
    factory: Any = lambda callback: Callbacks(callback)  # noqa: E731
    factory.trial = fake_trial
    return factory


def runs_of(uri: str, experiment: str) -> dict[str, Any]:
    """All runs of an experiment by name; fails where two have the same."""
    client = connect(uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id]) if found else []
    named = {run.info.run_name: run for run in runs}
    assert len(named) == len(runs), "two runs have the same name"
    return named


def points_of(uri: str, run: Any, metric: str) -> list[tuple[int, float]]:
    """All stored points (step, value) of a metric, duplicates included."""
    history = connect(uri).get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in history)


@pytest.fixture
def mlflow_read() -> SimpleNamespace:
    """`runs(uri, experiment)` by name, and `points(uri, run, metric)`."""
    return SimpleNamespace(runs=runs_of, points=points_of)


from report_lab import lab  # noqa: E402, F401 (a fixture of several files, made of what stands above)
