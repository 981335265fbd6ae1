"""Study files: what they mean, and what is said about wrong ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from study_files import STUDY, write

from tdmpc_ray.core.agents import find_settings
from tdmpc_ray.core.config import PATH_SETTINGS
from tdmpc_ray.rllib import TDMPC, TDMPC2Config
from tdmpc_ray.rllib.algorithm import AgentAlgorithm
from tdmpc_ray.studies.file.folder import going_on
from tdmpc_ray.studies.file.load import load_study, make_study
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.plan.configure import algorithm_config
from tdmpc_ray.studies.plan.trials import plan_study


def test_a_study_file_becomes_trials(tmp_path: Path) -> None:
    file = tmp_path / "quick.yaml"
    file.write_text(STUDY)
    study = load_study(file)
    assert study.trials() == 2 * 3 * 3 * 2
    assert study.settings() == {"planner.num_samples": 64, "update.tau": 0.001}
    variants = [trial.config for trial in plan_study(study).trials]
    assert len(variants) == study.trials()
    keys = {(v["model_size"], v["seed"], v["agent_overrides"]["planner.horizon"]) for v in variants}
    assert keys == {(size, seed, h) for size in ("tiny", "1") for seed in (0, 1, 2) for h in (2, 3, 5)}
    assert {v["agent_overrides"]["update.tau"] for v in variants} == {0.001}
    rates = [variant["agent_overrides"]["update.lr"] for variant in variants]
    assert len(set(rates)) == 2, "each sample is drawn once, for all sizes, seeds and points of the grids"
    assert all(1e-4 <= rate <= 1e-3 for rate in rates)
    assert variants == [trial.config for trial in plan_study(study).trials], "and always the same"
    other = make_study(
        yaml.safe_load(STUDY) | {"space": dict(reversed(yaml.safe_load(STUDY)["space"].items()))}
    )
    again = [trial.config["agent_overrides"]["update.lr"] for trial in plan_study(other).trials]
    assert set(again) == set(rates), "whatever their order in the file"


def test_the_written_study_is_the_same_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = load_study(write(tmp_path))
    copy = tmp_path / "copy.yaml"
    copy.write_text(study.to_yaml())
    monkeypatch.chdir("/")
    again = load_study(copy)
    assert again.tracking.uri == f"sqlite:///{tmp_path}/runs.db"
    assert again.settings() == study.settings()
    ignored = {"tracking", "overrides"}
    assert again.model_dump(exclude=ignored) == study.model_dump(exclude=ignored)


def test_paths_are_absolute_once_read_and_mean_the_same_where_the_study_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, out, moved = (tmp_path / name for name in ("begun", "out", "moved"))
    for folder in (begun, out):
        folder.mkdir()
    monkeypatch.chdir(begun)
    paths = {"start_from": "start", "set": {"data.demonstrations": "shown", "update.tau": 0.1}}
    study = load_study(write(tmp_path, **paths))
    assert study.start_from == str(begun / "start")
    [point, *_] = study.points()
    assert point.settings["data.demonstrations"] == str(begun / "shown")
    own = {"start_from": "../out/start", "set": {}, "num_samples": 1}
    own |= {"space": {"data.demonstrations": {"grid": ["", "a", str(out / "b"), "~/c", "s3://d"]}}}
    monkeypatch.setenv("HOME", "/home")
    of_out = make_study({**yaml.safe_load(STUDY), **own})
    listed = ["", str(begun / "a"), str(out / "b"), "/home/c", "s3://d"]
    assert of_out.space["data.demonstrations"].grid == listed

    for now in (study, of_out):
        (out / "study.yaml").write_text(now.to_yaml(out))
        (out / "mlflow").mkdir(exist_ok=True)
        monkeypatch.chdir("/")
        out.rename(moved)
        again, grown = going_on(moved, {"seeds": [0, 1, 2, 3]}, has_trials=lambda: True)
        expected = yaml.safe_load(now.to_yaml().replace(str(out), str(moved)))
        assert yaml.safe_load(again.to_yaml()) == {**expected, "seeds": [0, 1, 2, 3]}
        assert not grown, "no trials yet"
        moved.rename(out)


def test_every_setting_that_is_a_text_is_a_word_or_a_path() -> None:
    texts = {
        f"{section}.{field.name}"
        for section, kind in find_settings("tdmpc2").sections.items()
        for field in dataclasses.fields(kind)
        if isinstance(field.default, str)
    }
    words = {"planner.method", "data.priority_new", "update.train"}
    words |= {f"{section}.{key}" for section in ("planner", "update") for key in ("compile", "dtype")}
    assert texts == words | set(PATH_SETTINGS)


def test_a_list_of_tasks_is_one_set() -> None:
    study = make_study({"name": "q", "task": ["walker-walk", "ball_in_cup-catch"], "steps": 10})
    assert study.task == "walker-walk+cup-catch"
    assert algorithm_config(study).info.tasks == ("walker-walk", "cup-catch")


def test_each_task_and_each_resource_has_trials_of_its_own() -> None:
    study = make_study(
        {
            "name": "q",
            "tasks": [["walker-walk", "cup-catch"], "walker-walk", "mw-reach"],
            "preset": "light",
            "model_sizes": ["tiny"],
            "steps": 1000,
            "steps_per_task": True,
            "space": {"resources.num_env_runners": {"grid": [0, "2"]}, "planner.horizon": {"grid": [2, 3]}},
        }
    )
    both = "walker-walk+cup-catch"
    assert (study.trials(), study.score) == (3 * 2 * 2, "eval/score")
    assert (study.what, study.most_steps) == ("3 tasks", 2000)
    plan = plan_study(study)
    assert len(plan.trials) == study.trials()
    seen = set()
    for trial in plan.trials:
        config = TDMPC2Config().update_from_dict({**plan.fixed, **trial.config})
        config.validate()
        agent = config.agent()
        assert config.total_steps == (2000 if config.task == both else 1000)
        assert config.episode_length == (100 if config.task == "mw-reach" else 500)
        seen.add((config.task, config.num_env_runners, agent.planner.horizon))
    assert len(seen) == study.trials()
    assert {trial.label.split()[0] for trial in plan.trials} == {
        "task=walker-walk+1",
        "task=walker-walk",
        "task=mw-reach",
    }


def test_each_algorithm_has_trials_of_its_own() -> None:
    values = {"name": "q", "task": "walker-walk", "preset": "light", "model_sizes": ["1"], "steps": 1000}
    study = make_study({**values, "algorithm": ["tdmpc", "tdmpc2"], "seeds": [0, 1]})
    plan = plan_study(study)
    assert [trial.label for trial in plan.trials] == [
        f"algorithm={name} size=1 seed={seed}" for seed in (0, 1) for name in ("tdmpc", "tdmpc2")
    ]
    configs = [
        AgentAlgorithm.get_default_config().update_from_dict(plan.fixed | t.config) for t in plan.trials
    ]
    assert [config.agent().algorithm for config in configs[:2]] == ["tdmpc", "tdmpc2"]
    assert [config.agent().planner.num_samples for config in configs[:2]] == [136, 128]
    assert plan.trainable is AgentAlgorithm
    assert plan_study(make_study({**values, "algorithm": "tdmpc"})).trainable is TDMPC
    assert make_study({"name": "q", "task": "walker-walk", "steps": 9, "algorithm": "tdmpc"}).model_sizes == [
        "1"
    ]


def test_a_schedule_in_a_study_stays_one(tmp_path: Path) -> None:
    schedule = {"linear": [1, 3, 500]}
    values = {"name": "q", "task": "walker-walk", "steps": 1000, "set": {"planner.horizon": schedule}}
    study = make_study(
        values | {"space": {"planner.min_std": {"grid": [0.1, {"linear": ["5e-1", 0.05, 500]}]}}}
    )
    (tmp_path / "again.yaml").write_text(study.to_yaml())
    for read in (study, load_study(tmp_path / "again.yaml")):
        assert read.settings() == {"planner.horizon": schedule}
        planners = [algorithm_config(read, point).agent().planner for point in read.points()]
        assert [planner.at(0).horizon for planner in planners] == [1, 1]
        assert [planner.at(0).min_std for planner in planners] == [0.1, 0.5]


def test_values_reach_the_algorithm() -> None:
    study = make_study(
        {
            "name": "q",
            "task": "cartpole-balance",
            "preset": "light",
            "model_sizes": ["tiny", "1"],
            "seeds": [3],
            "steps": "6e3",
            "set": {"update.lr": "1e-3"},
            "space": {"planner.horizon": {"choice": ["2", 3]}},
            "evaluation": {"every": 1500, "episodes": 4},
            "resources": {
                "num_env_runners": 2,
                "num_envs_per_env_runner": 3,
                "cpus_per_env_runner": 0.5,
                "gpus_per_env_runner": 0.25,
                "rollout_fragment_length": 100,
                "asynchronous": False,
            },
            "max_env_faults": 3,
            "env_step_timeout_s": 7.5,
            "learner_timeout_s": 600,
        }
    )
    config = algorithm_config(study)
    config.validate()
    assert config.agent().update.lr == 1e-3
    assert (config.task, config.model_size, config.seed) == ("cartpole-balance", "tiny", 3)
    assert (config.eval_every, config.total_steps, config.evaluation_duration) == (1500, 6000, 4)
    assert (config.num_env_runners, config.num_envs_per_env_runner) == (2, 3)
    assert (config.num_cpus_per_env_runner, config.rollout_fragment_length) == (0.5, 100)
    assert config.num_gpus_per_env_runner == 0.25
    assert not config.is_asynchronous
    assert (config.max_env_faults, config.env_step_timeout_s, config.learner_timeout_s) == (3, 7.5, 600)
    trials = plan_study(study).trials
    assert {trial.config["agent_overrides"]["planner.horizon"] for trial in trials} <= {2, 3}
    assert [trial.config["model_size"] for trial in trials] == ["tiny", "1"]


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_shipped_studies_are_right(file: Path) -> None:
    study = load_study(file)
    assert study.name.replace("-", "_") == file.stem.replace("-", "_")
    assert study.trials() >= 1


def test_editors_get_a_schema() -> None:
    schema = Study.model_json_schema()
    assert {"set", "space", "model_sizes"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_yaml_merges_are_understood(tmp_path: Path) -> None:
    file = tmp_path / "merge.yaml"
    file.write_text(
        "name: m\ntask: walker-walk\nsteps: 9\nevaluation: &e {every: 7}\ncheckpoint: {<<: *e, keep: 3}\n"
    )
    assert load_study(file).checkpoint.model_dump() == {"every": 7, "keep": 3}
