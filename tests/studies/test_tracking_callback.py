"""The tracker driven call by call: outages, restarts, schedulers that change parameters, the study's run."""

from __future__ import annotations

import atexit
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
from callbacks import NOBODY, make
from mlflow.tracking import MlflowClient
from tracked import make_run, point

from tdmpc_ray.cli import main
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.folder import begin
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.results.study_runs import load_study_runs
from tdmpc_ray.studies.tracking.callback import MLflowTracker
from tdmpc_ray.studies.tracking.client import connect
from tdmpc_ray.studies.tracking.writer import RunWriter


def kill(tracker: MLflowTracker) -> None:
    """As SIGKILL would: what MLflow has stays as it is."""
    tracker.study_run.writer.close(30)
    atexit.unregister(tracker.close)


def test_nothing_is_left_running_after_close(
    store: str, tmp_path: Path, drive: Any, mlflow_read: Any
) -> None:
    tracker = make(store, tmp_path / "spool")
    tracker.setup()
    calls = drive(tracker)
    calls.start(drive.trial("a", seed=0))
    calls.result(calls.trials[0], 10, eval__return=1.0)
    assert tracker.close() is None  # as at exit after a second Ctrl-C: Tune has not ended the experiment
    assert {run.info.status for run in mlflow_read.runs(store, "exp").values()} == {"KILLED"}
    calls.end()
    assert {run.info.status for run in mlflow_read.runs(store, "exp").values()} == {"KILLED"}


def test_a_trial_that_fails_before_it_starts_has_a_run_and_a_reason(
    store: str, tmp_path: Path, drive: Any, mlflow_read: Any
) -> None:
    """Tune calls none started that cannot be set up."""
    tracker = make(
        store, tmp_path / "spool", failure=lambda trial: f"no {trial.trial_id} at http://me:pw@host"
    )
    tracker.setup()
    calls = drive(tracker)
    calls.trials += [drive.trial(name, seed=seed) for seed, name in enumerate("ab")]
    for trial in calls.trials:
        trial.status = "ERROR"
    calls.error(calls.trials[0])
    calls.end()  # of the second, Tune alone knows
    runs = mlflow_read.runs(store, "exp")
    assert {name: run.info.status for name, run in runs.items()} == dict.fromkeys(
        ("study", "seed=0", "seed=1"), "FAILED"
    )
    assert runs["seed=0"].data.tags["failure"] == "no a at http://***@host"
    assert runs["seed=1"].data.tags["failure"] == "no b at http://***@host"
    with pytest.raises(
        UserError, match=r"in 2 trials, of which 2 failed before the first evaluation: no [ab] at http"
    ):
        load_study_runs("exp", store)


def test_a_new_run_costs_no_search(
    store: str, tmp_path: Path, drive: Any, mlflow_read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a large store, a search by our key scans the tags of all runs."""

    def scan(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("searched")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "search_runs", scan)
        tracker = make(store, tmp_path / "spool")
        tracker.setup()
        calls = drive(tracker)
        for name in "ab":
            calls.start(drive.trial(name, seed=name))
            calls.result(calls.trials[-1], 10, eval__return=1.0)
            calls.complete(calls.trials[-1])
        assert tracker.close("FINISHED") is None
    assert {run.info.status for run in mlflow_read.runs(store, "exp").values()} == {"FINISHED"}


def test_a_new_run_whose_answer_is_lost_is_not_made_twice(
    store: str, tmp_path: Path, mlflow_read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_run, lost = MlflowClient.create_run, []

    def lose_one(client: MlflowClient, *args: Any, **kwargs: Any) -> Any:
        run = create_run(client, *args, **kwargs)
        if not lost:
            lost.append(run)
            raise OSError("the line went dead")
        return run

    monkeypatch.setattr(MlflowClient, "create_run", lose_one)
    writer = RunWriter(store, "exp", tmp_path, flush_s=0.01, retry_s=0.01)
    writer.put(make_run(fresh=True))
    assert writer.close(30) is not None
    writer.put(point("s", 1))
    assert writer.close(30) is None
    assert [run.info.run_id for run in mlflow_read.runs(store, "exp").values()] == [lost[0].info.run_id]


def test_a_trial_that_is_started_again_has_failed_no_more(
    store: str, tmp_path: Path, drive: Any, mlflow_read: Any
) -> None:
    tracker = make(store, tmp_path / "spool", failure=lambda trial: "disk full")
    tracker.setup()
    calls = drive(tracker)
    trial = drive.trial("a", seed=0)
    calls.start(trial)
    calls.error(trial)
    calls.start(trial)
    calls.complete(trial)
    calls.end()
    run = mlflow_read.runs(store, "exp")["seed=0"]
    assert (run.info.status, run.data.tags["failure"]) == ("FINISHED", "")


def test_a_killed_process_goes_on_with_the_same_runs(
    store: str, tmp_path: Path, drive: Any, mlflow_read: Any
) -> None:
    tracker = make(store, tmp_path / "spool")
    before_start = pickle.dumps(tracker)
    tracker.setup()
    calls = drive(tracker)
    trial = drive.trial("a", seed=0)
    calls.start(trial)
    calls.result(trial, 10, eval__return=1.0)
    state = pickle.loads(pickle.dumps(tracker.get_state()))
    kill(tracker)
    assert {run.info.status for run in mlflow_read.runs(store, "exp").values()} == {"RUNNING"}

    again = pickle.loads(before_start)
    again.set_state(state)
    again.setup()
    calls = drive(again)
    calls.start(trial)
    calls.result(trial, 20, eval__return=2.0)
    calls.complete(trial)
    calls.end()
    runs = mlflow_read.runs(store, "exp")
    assert {name: run.info.status for name, run in runs.items()} == {
        "study": "FINISHED",
        "seed=0": "FINISHED",
    }
    assert mlflow_read.points(store, runs["seed=0"], "eval/return") == [(10, 1.0), (20, 2.0)]


@pytest.mark.parametrize("starts", [False, True])
def test_a_study_that_gets_more_steps_has_not_ended_before_its_trials_go_on(
    store: str, tmp_path: Path, drive: Any, mlflow_read: Any, starts: bool
) -> None:
    tracker = make(store, tmp_path / "spool")
    tracker.setup()
    calls, trial = drive(tracker), drive.trial("a", seed=0)
    calls.start(trial)
    calls.complete(trial)
    calls.end()
    assert mlflow_read.runs(store, "exp")["study"].info.status == "FINISHED"

    again = make(store, tmp_path / "spool", reopened={"a"})
    again.set_state(tracker.get_state())
    again.setup()
    calls = drive(again)
    calls.trials.append(trial)
    if starts:
        calls.start(trial)
        calls.complete(trial)
    calls.end()
    assert mlflow_read.runs(store, "exp")["study"].info.status == ("FINISHED" if starts else "KILLED")


def test_steps_that_are_taken_again_are_not_logged_again(
    store: str, tmp_path: Path, drive: Any, mlflow_read: Any
) -> None:
    """A trial goes on from a checkpoint that is older than its last result: here, and in a new process."""
    tracker = make(store, tmp_path / "spool")
    before_start = pickle.dumps(tracker)
    tracker.setup()
    calls = drive(tracker)
    trial = drive.trial("a", seed=0)
    calls.start(trial)
    for step, value in ((10, 1.0), (20, 2.0), (30, 3.0), (20, -2.0), (30, -3.0), (40, 4.0)):
        calls.result(trial, step, eval__return=value)
    state = pickle.loads(pickle.dumps(tracker.get_state()))
    calls.result(trial, 50, eval__return=5.0)
    kill(tracker)

    again = pickle.loads(before_start)
    again.set_state(state)  # older than what MLflow has
    again.setup()
    calls = drive(again)
    calls.start(trial)
    for step, value in ((40, -4.0), (50, -5.0), (60, 6.0)):
        calls.result(trial, step, eval__return=value, **({"eval__length": 1.0} if step == 50 else {}))
    calls.complete(trial)
    calls.end()
    run = mlflow_read.runs(store, "exp")["seed=0"]
    points = mlflow_read.points(store, run, "eval/return")
    assert points == [(step, step / 10) for step in (10, 20, 30, 40, 50, 60)]
    assert mlflow_read.points(store, run, "eval/length") == [(50, 1.0)]  # new at a step that others have


def test_without_a_server_the_study_ends_and_is_brought_later(
    store: str,
    tmp_path: Path,
    drive: Any,
    mlflow_read: Any,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = {"name": "study", "task": "walker-walk", "steps": 50, "tracking": {"uri": store}}
    begin(make_study(study), tmp_path / "out", None)
    tracker = make(NOBODY, tmp_path / "out" / "mlflow")
    tracker.setup()
    calls = drive(tracker)
    for name in ("a", "b"):
        calls.start(drive.trial(name, seed=name))
    for step in range(1, 51):
        for trial in calls.trials:
            calls.result(trial, step, eval__return=float(step))
    tracker.study_run.log_metrics({"random/return": 39.0})
    calls.complete(calls.trials[0])
    calls.error(calls.trials[1])
    caplog.clear()
    with caplog.at_level(logging.WARNING, "tdmpc_ray.tracking"):
        calls.end()
    last = caplog.records[-1].getMessage()
    assert str(tmp_path / "out" / "mlflow" / "mlflow_spool.jsonl") in last
    assert "\n" not in last
    assert tracker.parent_run_id is None

    assert main(["sync", str(tmp_path / "out"), "--mlflow-uri", NOBODY]) == 2
    assert f"MLflow at {NOBODY} cannot be used" in capsys.readouterr().err
    assert main(["sync", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("delivered: ")
    assert main(["sync", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == "MLflow has everything\n"
    assert main(["sync", str(tmp_path)]) == 2
    runs = mlflow_read.runs(store, "exp")
    statuses = {name: run.info.status for name, run in runs.items()}
    assert statuses == {"study": "FAILED", "seed=a": "FINISHED", "seed=b": "FAILED"}
    for name in ("seed=a", "seed=b"):
        points = mlflow_read.points(store, runs[name], "eval/return")
        assert points == [(step, float(step)) for step in range(1, 51)]
    assert mlflow_read.points(store, runs["study"], "random/return") == [(0, 39.0)]


def test_a_study_that_was_killed_before_tune_had_saved_goes_on_in_its_run(
    store: str, tmp_path: Path, drive: Any, mlflow_read: Any
) -> None:
    first = make(store, tmp_path / "spool")
    first.setup()
    kill(first)
    again = make(store, tmp_path / "spool")
    again.setup()
    calls = drive(again)
    calls.start(drive.trial("a", seed=0))
    calls.complete(calls.trials[0])
    again.close("FINISHED")
    client = connect(store)
    runs = client.search_runs([client.get_experiment_by_name("exp").experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["seed=0", "study"]
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.parametrize(("done", "end"), [(True, "FINISHED"), (False, "KILLED")])
def test_an_end_that_tune_has_noted_and_we_have_not(
    store: str, tmp_path: Path, drive: Any, mlflow_read: Any, done: bool, end: str
) -> None:
    tracker = make(store, tmp_path / "spool")
    tracker.setup()
    calls = drive(tracker)
    trial = drive.trial("a", seed=0)
    calls.start(trial)
    calls.result(trial, 10, eval__return=1.0)
    # As after a kill between the two files that Tune keeps them in.
    trial.status, trial.last_result = "TERMINATED", {"done": done}
    calls.end()
    assert {run.info.status for run in mlflow_read.runs(store, "exp").values()} == {end}
