"""Studies that have ended, or were stopped, and get more steps, seeds or samples."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import runner_stub
import yaml
from ray import cloudpickle
from ray.tune import register_trainable
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Experiment, Trial
from rich.console import Console
from runner_stub import Stub

from tdmpc_ray.cli import main
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.growth import growth
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.plan.labels import trial_params
from tdmpc_ray.studies.plan.trials import plan_study
from tdmpc_ray.studies.run import runner
from tdmpc_ray.studies.run.continuing import TakeFromStudy
from tdmpc_ray.studies.run.outcome import Outcome
from tdmpc_ray.studies.run.runner import resume_study, run_study
from tdmpc_ray.studies.run.searching import make_search, trials_of

cloudpickle.register_pickle_by_value(runner_stub)  # Ray's workers cannot import test modules

DRAWN = {"update.lr": {"loguniform": [1e-4, 1e-2]}}
GRID = {"planner.horizon": {"grid": [3, 5]}}
LONGER = {"planner.horizon": {"grid": [1, 3, 5]}}
SHORTER = {"planner.horizon": {"grid": [3]}}


def study(**changes: Any) -> Study:
    values = runner_stub.values("sqlite:///no.db", evaluation={"every": 500}, steps=5000, set={})
    return make_study({**values, **changes})


def test_a_study_that_has_ended_gets_more_steps_and_seeds(
    local_ray: None,
    store: str,
    tmp_path: Path,
    mlflow_read: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quiet, out = Console(file=io.StringIO()), tmp_path / "out"
    tracking = {"uri": store, "experiment": "exp", "models": False}
    limit = {"max_concurrent_trials": 1}
    values = runner_stub.values(store, seeds=[0, 2], steps=200, tracking=tracking, resources=limit)
    assert run_study(make_study(values), out, trainable=Stub, console=quiet).finished == 2
    first = mlflow_read.runs(store, "exp")
    printed, at_once, start = io.StringIO(), list[int](), TuneController._schedule_trial_actor

    def count(controller: TuneController, trial: Trial) -> None:
        at_once.append(len(controller._trial_to_actor.keys() | controller._staged_trials))
        start(controller, trial)

    monkeypatch.setattr(TuneController, "_schedule_trial_actor", count)
    console = Console(file=printed, width=200)
    result = resume_study(out, changes={"steps": 400, "seeds": [1, 0, 2]}, trainable=Stub, console=console)
    assert (result.finished, result.unfinished, result.exit_status) == (3, 0, 0)
    assert at_once == [1, 1, 1], "trials at once, at the start of each"
    assert "it gets more steps: 200 -> 400" in printed.getvalue()
    assert "it gets more seeds: 0, 2 -> 1, 0, 2" in printed.getvalue()
    assert "size=tiny seed=0: done after 400 steps" in printed.getvalue()
    runs = mlflow_read.runs(store, "exp")
    assert {name: runs[name].info.run_id for name in first} == {n: r.info.run_id for n, r in first.items()}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for seed in (0, 1, 2):
        logged = mlflow_read.points(store, runs[f"size=tiny seed={seed}"], "train/return")
        assert [step for step, _ in logged] == [100, 200, 300, 400]
    assert runs["size=tiny seed=0"].data.metrics["starts"] == 2, "it went on from its last checkpoint"
    assert yaml.safe_load((out / "study.yaml").read_text())["steps"] == 400
    with pytest.raises(UserError, match=r"out/study\.yaml: cannot go on with steps: 400 -> 300: a"):
        resume_study(out, changes={"steps": 300}, trainable=Stub, console=quiet)
    assert yaml.safe_load((out / "study.yaml").read_text())["steps"] == 400


@pytest.mark.parametrize(
    ("before", "changes", "said"),
    [
        ({}, {"steps": 6000}, "steps: 5,000 -> 6,000"),
        ({}, {"seeds": [0, 1, 7]}, "seeds: 0, 1 -> 0, 1, 7"),
        ({}, {"model_sizes": ["tiny", "1"]}, "model_sizes: tiny -> tiny, 1"),
        (
            {"space": GRID},
            {"space": LONGER},
            "planner.horizon: 3, 5 -> 1, 3",
        ),
        ({"space": DRAWN, "num_samples": 2}, {"num_samples": 3}, "num_samples: 2 -> 3"),
        ({"space": DRAWN, "num_samples": 2, "search": "optuna"}, {"num_samples": 3}, "num_samples: 2 -> 3"),
        ({"space": DRAWN, "num_samples": 2, "scheduler": "pbt"}, {"steps": 9000}, "steps: 5,000 -> 9,000"),
        ({}, {"checkpoint": {"every": 7}, "max_failures": 9, "stop": {"score": 1}}, ""),
    ],
)
def test_what_a_study_can_get_more_of(before: dict[str, Any], changes: dict[str, Any], said: str) -> None:
    grown = growth(study(**before), study(**{**before, **changes}))
    assert len(grown) == bool(said)
    assert said in "".join(grown)


@pytest.mark.parametrize(
    ("before", "changes", "said"),
    [
        ({}, {"seeds": [1]}, "seeds: 0, 1 -> 1: a study that has begun can only get more steps, seeds"),
        ({}, {"set": {"update.lr": 0.1}}, "set.update.lr: nothing -> 0.1: a study that has begun can only"),
        ({}, {"evaluation": {"every": 900}}, "evaluation.every: 500 -> 900: its trials have begun with the"),
        (
            {"space": GRID},
            {"space": SHORTER},
            "planner.horizon: 3, 5 -> 3: a study",
        ),
        ({"space": DRAWN, "num_samples": 2, "search": "optuna"}, {"seeds": [0, 1, 2]}, "optuna has chosen"),
        ({"scheduler": "asha"}, {"steps": 9000}, "asha has judged its trials by the steps it began with"),
        ({"space": DRAWN, "num_samples": 2, "scheduler": "pbt"}, {"num_samples": 3}, "(pbt) begin together"),
    ],
)
def test_what_trials_cannot_take_is_refused_by_name(
    before: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as error:
        growth(study(**before), study(**{**before, **changes}))
    assert str(error.value).startswith("cannot go on with ")
    assert said in str(error.value)


def trials(study: Study, folder: Path, state: Path | None = None) -> tuple[Any, list[Trial]]:
    """The search of a study and the trials that it has left to begin, after those of `state`."""
    search = trials_of(make_search(plan_study(study, Stub)))
    register_trainable("Stub", Stub)
    if state is not None:
        search.restore_from_dir(str(state))
    search.add_configurations(
        [
            Experiment(
                "tune",
                "Stub",
                config={"preset": "light"},
                num_samples=study.trials(),
                storage_path=str(folder),
            )
        ]
    )
    left: list[Trial] = []
    while (trial := search.next_trial()) is not None:
        left.append(trial)
    return search, left


@pytest.mark.parametrize(
    ("method", "more", "number"),
    [
        ("random", {"seeds": [0, 1, 2]}, 2),
        ("random", {"num_samples": 4}, 4),
        ("random", {"model_sizes": ["1", "tiny"]}, 4),
        ("optuna", {"num_samples": 4}, 4),
    ],
)
def test_a_search_that_has_ended_makes_the_missing_trials(
    method: str, more: dict[str, Any], number: int, tmp_path: Path
) -> None:
    before = {"space": DRAWN, "num_samples": 2, "search": method}
    search, begun = trials(study(**before), tmp_path)
    search.save_to_dir(str(tmp_path), "1")
    for trial in begun:
        search.on_trial_complete(trial.trial_id, {"latest/eval/return": 1.0})
    again = make_study(yaml.safe_load(study(**{**before, **more}).to_yaml()))  # as it stands in its folder
    _, left = trials(again, tmp_path, tmp_path)
    assert len(left) == number
    assert len({trial.trial_id for trial in [*begun, *left]}) == len(begun) + number
    configs = [trial.config for trial in (*begun, *left)]
    whole = [(c["seed"], c["model_size"], str(c["agent_overrides"])) for c in configs]
    assert len(set(whole)) == len(whole), "none is there twice"
    resources = [{k: v for k, v in trial_params(c).items() if k.startswith("resources.")} for c in configs]
    assert len(set(map(str, resources))) == 1, "old and new trials are told apart by nothing else"


def test_trials_at_their_last_step_are_reopened_and_others_are_not(tmp_path: Path) -> None:
    _, [ended, early] = trials(study(steps=1000), tmp_path)
    for trial, steps in ((ended, 1000), (early, 700)):
        trial.set_status(Trial.TERMINATED)
        trial.run_metadata.last_result = {"env_steps": steps, "done": True}
    take = TakeFromStudy(study(steps=2000))
    for trial in (ended, early):
        take(trial)
    assert [trial.status for trial in (ended, early)] == [Trial.PENDING, Trial.TERMINATED]
    assert [trial.config["total_steps"] for trial in (ended, early)] == [2000, 2000]
    outcome = Outcome(dict, take.reopened)
    outcome.set_state({"ended": [ended.trial_id, early.trial_id]})
    outcome.on_experiment_end([ended, early])
    request: Any = SimpleNamespace(signum=None)
    assert outcome.result(tmp_path, request, 2).finished == 1  # a stop before it went on ends nothing


def test_options_of_resume(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def resume(folder: Path, changes: dict[str, Any], console: Any) -> Any:
        asked.append(changes)
        return SimpleNamespace(exit_status=0)

    monkeypatch.setattr(runner, "resume_study", resume)
    assert main(["resume", str(tmp_path), "--steps", "900", "--seeds", "0, 1,x"]) == 0
    assert main(["resume", str(tmp_path)]) == 0
    assert asked == [{"steps": 900, "seeds": [0, 1, "x"]}, {}]
    (tmp_path / "study.yaml").write_text(study().to_yaml())
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"seeds\.1: must be a number, not 'x'"):
        resume_study(tmp_path, changes={"seeds": [0, "x"]}, trainable=Stub)
