"""Studies of many trials, and two studies at once: nothing mixes, memory stays, and tracking costs little."""

from __future__ import annotations

import io
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import runner_stub
from driver import Driver
from ray import cloudpickle
from rich.console import Console
from runner_stub import Stub

from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.run.runner import run_study
from tdmpc_ray.studies.tracking import writer as mlflow_writer
from tdmpc_ray.studies.tracking.callback import MLflowTracker
from tdmpc_ray.studies.tracking.client import connect

# Ray's workers cannot import test modules.
cloudpickle.register_pickle_by_value(runner_stub)

CALLBACKS = ("on_trial_start", "on_trial_result", "on_trial_complete", "on_checkpoint")


class Costs:
    """Seconds of Tune's loop, which tracking's callbacks hold up, and of its own thread's CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop_s = self.thread_s = 0.0
        self.peak_gib = 0.0
        for name in CALLBACKS:
            monkeypatch.setattr(MLflowTracker, name, self._timed(getattr(MLflowTracker, name)))
        run = mlflow_writer.RunWriter._run

        def timed_run(writer: Any, epoch: int) -> None:
            started = time.thread_time()
            run(writer, epoch)
            self.thread_s += time.thread_time() - started

        monkeypatch.setattr(mlflow_writer.RunWriter, "_run", timed_run)

    def _timed(self, method: Any) -> Any:
        def timed(*args: Any, **kwargs: Any) -> None:
            started = time.perf_counter()
            method(*args, **kwargs)
            self.loop_s += time.perf_counter() - started
            self.peak_gib = max(self.peak_gib, psutil.Process().memory_info().rss / 2**30)

        return timed


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    "trials", [8, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_many_short_trials(trials: int, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = Costs(monkeypatch)
    before_gib = psutil.Process().memory_info().rss / 2**30
    name = f"many-{trials}"
    values = runner_stub.values(
        server.uri,
        name=name,
        seeds=list(range(trials)),
        steps=2000,
        tracking={"uri": server.uri, "experiment": name},
    )
    started = time.perf_counter()
    result = run_study(
        make_study(values), tmp_path / "out", trainable=Stub, console=Console(file=io.StringIO())
    )
    wall_s = time.perf_counter() - started
    assert (result.finished, result.exit_status) == (trials, 0)
    client = connect(server.uri)
    runs = client.search_runs([client.get_experiment_by_name(name).experiment_id], max_results=1000)
    assert len(runs) == trials + 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    children = [run for run in runs if run.data.tags["kind"] == "trial"]
    assert {run.data.params["seed"] for run in children} == {str(seed) for seed in range(trials)}
    trial_s = 20 * 0.1  # what the stub sleeps
    shares = [seconds / trials / trial_s for seconds in (costs.loop_s, costs.thread_s)]
    print(
        f"{trials} trials of {trial_s:g} s, 20 results each, in {wall_s:.0f} s; the driver had "
        f"{before_gib:.2f} GiB before and {costs.peak_gib:.2f} at most; tracking held its loop up for "
        f"{1e3 * costs.loop_s / trials:.2f} ms a trial ({shares[0]:.2%}) and took "
        f"{1e3 * costs.thread_s / trials:.1f} ms of CPU ({shares[1]:.2%}), that is "
        f"{1e3 * (costs.loop_s + costs.thread_s) / trials / 20:.2f} ms a result"
    )
    assert costs.peak_gib < before_gib + 0.5
    # A trial of TD-MPC2 has a result every ten seconds or 500 steps; the stub has one every 0.1 s.
    assert (costs.loop_s + costs.thread_s) / (20 * trials) < 0.01 * 10


def test_two_studies_at_once_into_one_experiment(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace
) -> None:
    drivers = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        drivers.append(Driver(folder, str(Path(runner_stub.__file__)), "run", "out", store, "2000"))
    assert [driver.end() for driver in drivers] == [0, 0]
    runs = connect(store).search_runs(
        [connect(store).get_experiment_by_name("exp").experiment_id], max_results=100
    )
    parents = [run for run in runs if run.data.tags["kind"] == "study"]
    assert len(parents) == 2
    for parent in parents:
        children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        assert {child.data.params["seed"] for child in children} == {"0", "1", "2"}
        assert {child.info.status for child in children} == {"FINISHED"}
        for child in children:
            steps = [step for step, _ in mlflow_read.points(store, child, "train/return")]
            assert steps == list(range(100, 2001, 100))
