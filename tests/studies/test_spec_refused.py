"""What is no study file, or an impossible study: one line that says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from study_files import STUDY, write

from tdmpc_ray.core.agents.tdmpc2.config import MODEL_SIZES
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.load import load_study, make_study

LIMITED = "resources.max_concurrent_trials: scheduler: {} compares trials that are under way, and"


GPUS = "must be a share of one GPU, up to 1, or a whole number of GPUs"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_sise": [1]}, "unknown key 'model_sise': did you mean 'model_sizes'?"),
        ({"evaluation": {"evry": 3}}, "evaluation: unknown key 'evry': did you mean 'every'?"),
        (
            {"resources": {"num_env_runner": 1}},
            "resources: unknown key 'num_env_runner': did you mean 'num_env_runners'?",
        ),
        (
            {"set": {"preset": "light"}},
            "set: 'preset' is no setting of the agent: give it beside set, not in it",
        ),
        ({"set": {"update.lrr": 1}}, "set: unknown setting 'update.lrr': did you mean 'update.lr'?"),
        (
            {"space": {"planner.horizn": {"grid": [1]}}},
            "space: unknown setting 'planner.horizn': did you mean 'planner.horizon'?",
        ),
        (
            {"space": {"update.lr": {"logunifrom": [1, 2]}}},
            "space.update.lr: unknown distribution 'logunifrom': did you mean 'loguniform'?",
        ),
        ({"task": "walker-wlk"}, "task: unknown task 'walker-wlk': did you mean 'walker-walk'?"),
        ({"task": ...}, "give either 'task' or 'tasks', such as task: walker-walk"),
        ({"tasks": ["walker-run"]}, "give either 'task' or 'tasks', such as task: walker-walk"),
        ({"task": ..., "tasks": ["walker-run", "walker_run"]}, "tasks: walker-run is there twice"),
        (
            {"task": ..., "tasks": ["walker-walk", "walker-rnu"]},
            "tasks: unknown task 'walker-rnu': did you mean 'walker-run'?",
        ),
        (
            {"task": ..., "tasks": ["walker-walk", "walker-run"], "scheduler": "asha"},
            "scheduler: asha would compare returns of different tasks: give one task",
        ),
        (
            {"space": {"resources.num_env_runner": {"grid": [1]}}},
            "space: unknown resource of a trial 'resources.num_env_runner': did you mean "
            "'resources.num_env_runners'?",
        ),
        (
            {"space": {"resources.num_env_runners": {"randint": [1, 4]}}},
            "space: resources.num_env_runners: resources are compared, not drawn: give {grid: [...]}",
        ),
        (
            {"space": {"resources.num_env_runners": {"grid": [1, -1]}}, "num_samples": 1},
            "resources.num_env_runners: must be greater than or equal to 0, not -1",
        ),
        (
            {
                "scheduler": {"method": "pbt", "every": 1000},
                "model_sizes": ["tiny"],
                "space": {"update.lr": {"loguniform": [1e-4, 1e-3]}},
                "evaluation": {"every": 1000},
                "resources": {"max_concurrent_trials": 5},
            },
            f"{LIMITED.format('pbt')} of 6 only 5 would be: leave it out, or set it to 6",
        ),
        (
            {
                "scheduler": {"method": "hyperband", "grace_steps": 1000},
                "evaluation": {"every": 1000},
                "resources": {"max_concurrent_trials": 1},
            },
            f"{LIMITED.format('hyperband')} of 36 only 1 would be: leave it out, or set it to 36",
        ),
        (
            {"resources": {"gpus_per_learner": 1.5}},
            f"resources.gpus_per_learner: {GPUS}, not 1.5",
        ),
        (
            {"resources": {"gpus_per_env_runner": "2.25"}},
            f"resources.gpus_per_env_runner: {GPUS}, not 2.25",
        ),
        (
            {"space": {"resources.gpus_per_learner": {"grid": [0.5, 2, 2.5]}}, "num_samples": 1},
            f"resources.gpus_per_learner: {GPUS}, not 2.5",
        ),
        (
            {"task": "gym:Pendulum-v1", "obs": "rgb"},
            "task 'gym:Pendulum-v1' has no camera to observe: rgb is for DMControl's and Meta-World's tasks; "
            "environments that observe byte images need no such option",
        ),
        ({"obs": "pixels"}, "unknown observations 'pixels': use state or rgb"),
        (
            {"model_sizes": [2]},
            f"model_sizes: unknown model size '2': choose one of: {', '.join(MODEL_SIZES)}",
        ),
        ({"model_sizes": []}, "model_sizes: must not be empty"),
        ({"preset": "lite"}, "preset: unknown preset 'lite': did you mean 'light'?"),
        ({"steps": -5}, "steps: must be greater than 0, not -5"),
        ({"steps": True}, "steps: must be a number, not true"),
        ({"steps": "many"}, "steps: must be a number, not 'many'"),
        ({"seeds": 5}, "seeds: must be a list, such as [5]"),
        ({"seeds": [1, 1]}, "seeds: 1 is there twice"),
        ({"seeds": [1.5]}, "seeds.0: must be a whole number, not 1.5"),
        ({"steps": None}, "steps: must be a whole number, but is empty"),
        ({"steps_per_task": "maybe"}, "steps_per_task: must be true or false, not 'maybe'"),
        ({"obs": 3}, "obs: must be a text, not 3"),
        ({"stop": {"score": float("nan")}}, "stop.score: must be a finite number, not nan"),
        ({"metric": "retrun"}, "metric: must begin with eval/, such as eval/return, not 'retrun'"),
        ({"set": {1: 2}}, "set: a key must be a word, not 1"),
        ({"task": [["walker-walk"]]}, "task: must be a text, not [['walker-walk']]"),
        ({"seeds": [0, 2**32]}, "seeds.1: must be less than or equal to 4294967295, not 4294967296"),
        ({"evaluation": 5}, "evaluation: must hold 'key: value' pairs, not 5"),
        ({"set": {"update.tau": 2}}, "update.tau must lie in (0, 1]"),
        ({"set": {"planner.horizon": 3}}, "'planner.horizon' is both in set and in space: keep one"),
        (
            {"space": {"planner.horizon": {"uniform": [2, 5]}}},
            "planner.horizon=3.145898 is not a valid value: expected int",
        ),
        (
            {"space": {"planner.num_elites": {"grid": [8, 65]}}, "num_samples": 1},
            "planner.num_elites must not exceed planner.num_samples",
        ),
        (
            {"space": {"update.lr": [1, 2]}},
            "space.update.lr: say how to use the values: {grid: [1, 2]} or {choice: [1, 2]}",
        ),
        (
            {"space": {"update.lr": 0.1}},
            "space.update.lr: give a distribution, or put the fixed value 0.1 under 'set'",
        ),
        (
            {"space": {"update.lr": {"loguniform": [0, 1]}}},
            "space.update.lr: loguniform needs a low above 0, not 0.0",
        ),
        (
            {"space": {"update.lr": {"uniform": [1]}}},
            "space.update.lr: uniform needs [low, high], not [1]",
        ),
        (
            {"space": {"update.lr": {"grid": [0.002, 0.001, 0.001]}}, "num_samples": 1},
            "space.update.lr: 0.001 is there twice",
        ),
        (
            {"space": {"update.lr": {"grid": ["1e-3", 0.002, 0.001]}}, "num_samples": 1},
            "space.update.lr: 0.001 is there twice",
        ),
        (
            {"space": {"planner.method": {"choice": ["cem", "mppi", "cem"]}}},
            "space.planner.method: cem is there twice",
        ),
        (
            {"space": {"resources.num_env_runners": {"grid": [2, "2"]}}, "num_samples": 1},
            "space.resources.num_env_runners: 2 is there twice",
        ),
        (
            {"space": {"planner.horizon": {"grid": [2]}}},
            "num_samples > 1 would repeat the same trials: space draws nothing at random",
        ),
        (
            {"search": {"method": "optuna", "options": {"metric": "x"}}},
            "search.options: the study itself says the metric: leave it out",
        ),
        (
            {"search": {"method": "optuna", "options": {"points_to_evaluate": [{"update.l": 1e-3}]}}},
            "search.options.points_to_evaluate: unknown setting 'update.l': did you mean 'update.lr'?",
        ),
        (
            {"search": {"method": "optuna", "options": {"points_to_evaluate": [{"update.lr": 7.0}]}}},
            "search.options.points_to_evaluate: update.lr=7.0 lies outside its range in space",
        ),
        ({"name": "a/b"}, "name: 'a/b' has characters that file names should not have"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = write(tmp_path, **changes)
    with pytest.raises(UserError) as caught:
        load_study(file)
    assert str(caught.value) == f"{file}: {message}"


def test_several_problems_are_listed(tmp_path: Path) -> None:
    file = write(tmp_path, steps=0, tsk="x", task=...)
    with pytest.raises(UserError) as caught:
        load_study(file)
    assert str(caught.value).splitlines() == [
        f"{file} has 2 problems:",
        "  steps: must be greater than 0, not 0",
        "  unknown key 'tsk': did you mean 'task'?",
    ]


def test_nothing_long_is_repeated(tmp_path: Path) -> None:
    long = "x" * 100_000
    cases: list[dict[Any, Any]] = [
        {"name": f"{long}/"},
        {"task": long},
        {"obs": [long] * 1000},
        {"set": {"update.lr": [[long] * 10] * 10}},
        {"set": {long: 1}},
        {long: 1},
        {"seeds": [long] * 100},
        {"seeds": [long], "model_sizes": [[long]]},
        {"space": {"update.lr": [long] * 10}},
        {"tasks": long},
    ]
    for changes in cases:
        with pytest.raises(UserError) as caught:
            make_study({**yaml.safe_load(STUDY), **changes})
        assert len(str(caught.value)) < 5000
    with pytest.raises(UserError, match="and 480 problems more"):
        make_study({**yaml.safe_load(STUDY), "seeds": [*"ab"] * 250})


def test_the_longest_name_is_taken() -> None:
    assert make_study({**yaml.safe_load(STUDY), "name": "n" * 250, "steps": 2**63 - 1}).steps == 2**63 - 1
