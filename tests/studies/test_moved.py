"""Studies that were stopped, then moved or copied, and go on where they lie now."""

from __future__ import annotations

import io
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import runner_stub
import yaml
from ray import cloudpickle
from ray.train._internal.session import _TrainingResult
from ray.tune import Checkpoint, register_trainable
from ray.tune.experiment import Experiment, Trial
from ray.tune.search import SearchAlgorithm
from rich.console import Console
from runner_stub import Stub

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.plan.trials import plan_study
from tdmpc_ray.studies.run import continuing
from tdmpc_ray.studies.run.continuing import TakeFromStudy
from tdmpc_ray.studies.run.runner import resume_study, run_study
from tdmpc_ray.studies.run.searching import make_search, trials_of
from tdmpc_ray.studies.tracking.ops import Spool, artifact

cloudpickle.register_pickle_by_value(runner_stub)  # Ray's workers cannot import test modules

STEPS = 200


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def steps_at(out: Path) -> dict[int, int]:
    """Seed to the agent steps of its newest checkpoint."""
    files = sorted(out.glob("tune/*/checkpoint_*/stub.json"))
    return {
        int(file.parents[1].name.split("-seed")[1].split("-")[0]): yaml.safe_load(file.read_text())[0]
        for file in files
    }


def stop_when(condition: Any) -> threading.Thread:
    """Ask this process to stop its study once `condition` holds."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.usefixtures("local_ray")
def test_a_stopped_study_goes_on_in_its_copy_and_where_it_was_moved(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace
) -> None:
    out, copy, moved = tmp_path / "out", tmp_path / "copy", tmp_path / "deep" / str(tmp_path)[1:] / "out"
    study = make_study(
        runner_stub.values(
            store,
            seeds=[*range(6)],
            steps=STEPS,
            checkpoint={"every": 100},
            resources={"max_concurrent_trials": 2},
            tracking={"uri": store, "experiment": "exp", "models": False},
        )
    )
    thread = stop_when(lambda: len(steps_at(out)) == 2)
    stopped = run_study(study, out, trainable=Stub, console=quiet())
    thread.join()
    assert stopped.signum == signal.SIGTERM
    assert stopped.unfinished > 3, "there must be trials that do not exist yet"
    saved = steps_at(out)
    shutil.copytree(out, copy)

    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}

    before = files()
    for place in (copy, moved):
        if place == moved:
            moved.parent.mkdir(parents=True)
            shutil.move(out, moved)
        console = quiet()
        result = resume_study(place, trainable=Stub, console=console)
        said = console.file.getvalue()  # type: ignore[attr-defined]
        assert ("this is a copy of" in said) == (place == copy)
        assert (result.finished, result.exit_status) == (6, 0)
        assert steps_at(place) == dict.fromkeys(range(6), STEPS)
        assert all(path.is_relative_to(place) for path in result.checkpoints.values())
        assert (files() == before) if place == copy else not out.exists()
    for file in copy.glob("tune/basic-variant-state*"):
        file.unlink()
    with pytest.raises(UserError, match=r"cannot resume: .* \(the state of the search is missing\)"):
        resume_study(copy, trainable=Stub, console=quiet())
    runs = mlflow_read.runs(store, "exp")
    assert len(runs) == 7
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for seed in saved:
        logged = mlflow_read.points(store, runs[f"size=tiny seed={seed}"], "train/return")
        assert [step for step, _ in logged] == [*range(100, STEPS + 1, 100)]


def experiment(study: Any, folder: Path) -> Experiment:
    register_trainable("Stub", Stub)
    return Experiment(
        "tune", "Stub", config={"preset": "light"}, num_samples=study.trials(), storage_path=str(folder)
    )


def search_of(study: Any) -> SearchAlgorithm:
    return trials_of(make_search(plan_study(study, Stub)))


def suggested(search: SearchAlgorithm) -> list[Trial]:
    trials: list[Trial] = []
    while (trial := search.next_trial()) is not None:
        trials.append(trial)
    return trials


SPACE = {"update.lr": {"loguniform": [1e-4, 1e-2]}}


@pytest.mark.parametrize("limit", [None, 4])
@pytest.mark.parametrize("method", ["optuna", "random"])
def test_trials_to_come_lie_where_the_study_lies_now(method: str, limit: int | None, tmp_path: Path) -> None:
    values = runner_stub.values(
        "sqlite:///no.db", seeds=[0], space=SPACE, set={}, search=method, num_samples=4
    )
    study = make_study({**values, "resources": {"max_concurrent_trials": limit}})
    first = search_of(study)
    first.add_configurations([experiment(study, tmp_path / "old")])
    begun = [first.next_trial() for _ in range(2)]
    (tmp_path / "state").mkdir()
    first.save_to_dir(str(tmp_path / "state"), "1")

    again = search_of(study)
    again.restore_from_dir(str(tmp_path / "state"))
    again.add_configurations([experiment(study, tmp_path / "new")])
    to_come = suggested(again)
    assert [trial.storage.storage_fs_path for trial in to_come] == [str(tmp_path / "new")] * 2
    assert len({trial.trial_id for trial in [*begun, *to_come]}) == 4
    if method == "random":  # the very draws that a study has which is never stopped
        whole = search_of(study)
        whole.add_configurations([experiment(study, tmp_path / "whole")])
        assert [t.config for t in [*begun, *to_come]] == [t.config for t in suggested(whole)]


def test_files_that_wait_for_mlflow_are_found_in_a_moved_study(tmp_path: Path) -> None:
    own, other = tmp_path / "out" / "film.mp4", tmp_path / "elsewhere.png"
    (tmp_path / "out").mkdir()
    own.touch()
    Spool(tmp_path / "out" / "mlflow" / "spool.jsonl").append([artifact("a", own), artifact("a", other)])
    shutil.move(tmp_path / "out", tmp_path / "moved")
    waiting = list(Spool(tmp_path / "moved" / "mlflow" / "spool.jsonl"))
    assert [op["path"] for op in waiting] == [str(tmp_path / "moved/film.mp4"), str(other)]


def test_checkpoints_of_a_population_are_found_where_they_lie_now(tmp_path: Path) -> None:
    [trial, donor] = make_trials(tmp_path)
    manager = trial.run_metadata.checkpoint_manager
    for path in (f"/old/tune/{trial.trial_id}/checkpoint_000001", f"/old/tune/{donor.trial_id}/checkpoint_7"):
        manager._latest_checkpoint_result = _TrainingResult(Checkpoint(path), metrics={})
        manager._checkpoint_results.append(manager._latest_checkpoint_result)
    controller: Any = SimpleNamespace(_storage=trial.storage)
    continuing._Controller._bring_checkpoints(controller, trial)
    here = tmp_path / "tune"
    assert trial.checkpoint.path == str(here / donor.trial_id / "checkpoint_7")
    paths = [result.checkpoint.path for result in manager.best_checkpoint_results]
    assert paths == [str(here / trial.trial_id / "checkpoint_000001"), trial.checkpoint.path]


def make_trials(folder: Path, **changes: Any) -> list[Trial]:
    study = make_study(runner_stub.values("sqlite:///no.db", **changes))
    search = search_of(study)
    search.add_configurations([experiment(study, folder)])
    return suggested(search)


def test_a_restored_trial_keeps_what_a_population_has_changed_and_finds_what_has_moved(
    tmp_path: Path,
) -> None:
    trial = make_trials(tmp_path)[0]
    trial.set_config({**trial.config, "start_from": "/old/start", "agent_overrides": {"update.lr": 0.5}})
    changes = {"start_from": "start", "set": {"data.demonstrations": "shown"}, "max_failures": 4}
    study = make_study(runner_stub.values("sqlite:///no.db", **changes), folder=tmp_path)
    TakeFromStudy(study)(trial)
    assert trial.max_failures == 4
    # As Tune does for configs that hold classes, such as RLlib's.
    trial.resolve_config_placeholders({})
    shown = str(tmp_path / "shown")
    assert trial.config["agent_overrides"] == {"update.lr": 0.5, "data.demonstrations": shown}
    assert trial.config["start_from"] == str(tmp_path / "start")
