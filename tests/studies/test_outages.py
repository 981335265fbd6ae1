"""Studies whose MLflow is down, goes, refuses or is slow: they go on as fast, and nothing is lost or doubled.

Short forms; the long ones, with an outage of a minute, are `make test-slow`.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import runner_stub
from door import Door
from ray import cloudpickle
from rich.console import Console
from runner_stub import Stub

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.run.runner import run_study
from tdmpc_ray.studies.run.sync import sync_study
from tdmpc_ray.studies.tracking.client import connect

# Ray's workers cannot import test modules.
cloudpickle.register_pickle_by_value(runner_stub)

pytestmark = pytest.mark.usefixtures("local_ray")


@dataclass(frozen=True)
class Scale:
    """How long: agent steps of the stub (1,000 a second), seconds until an outage begins and ends."""

    steps: int
    begin_s: float
    end_s: float
    answer_s: float  # of a slow server


SHORT = Scale(steps=5000, begin_s=2.0, end_s=4.0, answer_s=0.3)
LONG = Scale(steps=120_000, begin_s=20.0, end_s=80.0, answer_s=5.0)
scales = pytest.mark.parametrize(
    "scale",
    [SHORT, pytest.param(LONG, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])],
    ids=["short", "long"],
)


@pytest.fixture
def door(server: Any) -> Iterator[Door]:
    made = Door(server.port)
    yield made
    made.close()


def study_through(door: Door, scale: Scale, folder: Path, name: str) -> tuple[float, str]:
    """Run a study of two trials; seconds from its first to its last result, and what it said."""
    printed = io.StringIO()
    tracking = {"uri": door.uri, "experiment": name, "required": False}
    study = make_study(runner_stub.values(door.uri, name=name, steps=scale.steps, tracking=tracking))
    result = run_study(study, folder / name, trainable=Stub, console=Console(file=printed, width=200))
    assert (result.finished, result.exit_status) == (2, 0)
    door.state, door.delay_s = "open", 0.0
    sync_study(folder / name)
    client = connect(door.uri)
    found = client.get_experiment_by_name(name)
    runs = client.search_runs([found.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    trials = [run for run in runs if run.data.tags["kind"] == "trial"]
    assert len(trials) == 2
    times = []
    for run in trials:
        for metric, every in (("train/return", 100), ("eval/return", 500)):
            history = client.get_metric_history(run.info.run_id, metric)
            assert sorted(point.step for point in history) == list(range(every, scale.steps + 1, every))
            times += [point.timestamp for point in history]
    return (max(times) - min(times)) / 1000, printed.getvalue()


@scales
@pytest.mark.parametrize("outage", ["at the start", "for a while", "for good", "forbidden", "slow"])
def test_an_outage_costs_no_time_and_no_point(scale: Scale, outage: str, door: Door, tmp_path: Path) -> None:
    name = f"{outage} {scale.steps}".replace(" ", "-")
    usual_s = study_through(door, scale, tmp_path, f"{name}-usual")[0] if scale is LONG else 0.0

    def begin() -> None:
        door.state = {"forbidden": "forbidden", "slow": "open"}.get(outage, "shut")
        door.delay_s = scale.answer_s if outage == "slow" else 0.0

    def come_and_go() -> None:
        if outage == "at the start":
            assert door.hung_up.wait(120)
        else:
            assert door.logged.wait(120)
            time.sleep(scale.begin_s)
            begin()
        if outage not in ("for good", "slow"):
            time.sleep(scale.end_s - scale.begin_s)
            door.state = "open"

    door.logged.clear()  # by the usual study
    if outage == "at the start":
        begin()
    thread = threading.Thread(target=come_and_go)
    thread.start()
    took_s, said = study_through(door, scale, tmp_path, name)
    thread.join()
    if outage == "for good":
        assert "MLflow has not got everything: once it answers, bring it the rest with: " in said
    if scale is LONG:
        print(f"{outage}: {took_s:.1f} s, {took_s / usual_s:.3f} of a study with MLflow at hand")
        assert took_s < 1.02 * usual_s


def test_a_study_starts_without_mlflow_only_where_it_may(door: Door, tmp_path: Path) -> None:
    door.state = "shut"
    study = make_study(runner_stub.values(door.uri))
    with pytest.raises(UserError, match="cannot be used"):
        run_study(study, tmp_path / "out", trainable=Stub)
    assert not (tmp_path / "out").exists()
