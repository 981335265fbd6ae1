"""Study files: what they mean, and what is said about wrong ones."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.tune.search.variant_generator import generate_variants

from tdmpc_ray.core.agents import find_settings
from tdmpc_ray.core.config import PATH_SETTINGS
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.studies.file.folder import going_on
from tdmpc_ray.studies.file.load import load_study, make_study
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.plan.configure import algorithm_config, env_configs, search_space
from tdmpc_ray.studies.plan.labels import label_params

STUDY = """
name: quick
task: walker-walk
preset: light
model_sizes: [tiny, 1]
seeds: [0, 1, 2]
steps: 6000
set: {planner.num_samples: 64, update.tau: 1e-3}
space:
  update.lr: {loguniform: [1e-4, 1e-3]}
  planner.horizon: {grid: [2, 3, 5]}
num_samples: 2
tracking: {uri: sqlite:///runs.db}
"""

LIMITED = "resources.max_concurrent_trials: scheduler: {} compares trials that are under way, and"
GPUS = "must be a share of one GPU, up to 1, or a whole number of GPUs"


def write(folder: Path, text: str = STUDY, **changes: Any) -> Path:
    values = {**yaml.safe_load(text), **changes}
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not ...}))
    return file


def test_a_study_file_becomes_trials(tmp_path: Path) -> None:
    file = tmp_path / "quick.yaml"
    file.write_text(STUDY)
    study = load_study(file)
    assert study.trials() == 2 * 3 * 3 * 2
    assert study.settings() == {"planner.num_samples": 64, "update.tau": 0.001}
    space = search_space(study, env_configs(study))
    variants = [spec for _, spec in generate_variants(space)]
    assert len(variants) == 2 * 3 * 3
    keys = {(v["model_size"], v["seed"], v["agent_overrides"]["planner.horizon"]) for v in variants}
    assert keys == {(size, seed, h) for size in ("tiny", "1") for seed in (0, 1, 2) for h in (2, 3, 5)}
    for variant in variants:
        assert 1e-4 <= variant["agent_overrides"]["update.lr"] <= 1e-3
        assert variant["agent_overrides"]["update.tau"] == 0.001


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
    for variant in generate_variants(search_space(study, env_configs(study))):
        assert variant[1]["agent_overrides"]["data.demonstrations"] == str(begun / "shown")
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
    words = {"planner.method", "data.priority_new"}
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
    assert (study.trials(), study.score) == (3 * 2 * 2, "eval/return")
    assert (study.what, study.most_steps) == ("3 tasks", 2000)
    space = {**algorithm_config(study).to_dict(), **search_space(study, env_configs(study))}
    variants = [variant for _, variant in generate_variants(space)]
    assert len(variants) == study.trials()
    seen = set()
    for variant in variants:
        config = TDMPC2Config().update_from_dict(variant)
        config.validate()
        agent = config.agent()
        assert config.total_steps == (2000 if config.task == both else 1000)
        assert config.episode_length == (100 if config.task == "mw-reach" else 500)
        seen.add((config.task, config.num_env_runners, agent.planner.horizon))
    assert len(seen) == study.trials()
    assert {label_params(variant, study)["task"] for variant in variants} == {
        "walker-walk+1",
        "walker-walk",
        "mw-reach",
    }


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
    space = search_space(study, env_configs(study))
    [variant, _] = [spec for _, spec in generate_variants(space)]
    assert variant["agent_overrides"]["planner.horizon"] in (2, 3)
    assert space["model_size"] == {"grid_search": ["tiny", "1"]}


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
            "model_sizes: unknown model size '2': choose one of: tiny, 1, 5, 19, 48, 317",
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


HUGE = 10**5000  # Python refuses to write it


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": HUGE}, "steps: must lie within ±9223372036854775807, not a number of about 5,000 digits"),
        ({"steps": -HUGE}, "steps: must lie within ±9223372036854775807, not a number of about 5,000 digits"),
        ({"steps": 2**63}, "steps: must lie within ±9223372036854775807, not 9223372036854775808"),
        ({"steps": "9223372036854775808"}, "steps: must be a whole number, not 9.22"),
        ({"max_failures": 2**63}, "max_failures: must lie within"),
        ({"seeds": [0, HUGE]}, "seeds.1: must lie within"),
        ({"model_sizes": [HUGE]}, "model_sizes.0: must lie within"),
        ({"name": HUGE}, "name: must lie within"),
        ({"set": {"update.batch_size": 10**400}}, "set.update.batch_size: must lie within"),
        ({"set": {"update.batch_size": "9" * 400}}, "update.batch_size='9999"),
        ({"set": {"data.capacity": "1e30"}}, "data.capacity='1e30' is not a valid value: expected int"),
        ({"set": {HUGE: 1}}, "set: a key must be a word"),
        ({"space": {"update.lr": {"uniform": [0, HUGE]}}}, "space.update.lr.uniform.1: must lie within"),
        (
            {"space": {"update.lr": {HUGE: [0, 1]}}},
            "space.update.lr: unknown distribution 'a number of about",
        ),
        (
            {"space": {"planner.horizon": {"randint": [1, "9" * 400]}}},
            "space.planner.horizon: randint needs ",
        ),
        ({"stop": {"score": HUGE}}, "stop.score: must lie within"),
        ({"search": {"method": "optuna", "options": {"seed": HUGE}}}, "search.options.seed: must lie within"),
        ({"name": "n" * 251}, "name: must have 250 characters at most, not 251"),
        ({"name": "n" * 3_000_000}, "name: must have 10,000 characters at most, not 3,000,000"),
        ({"tracking": {"experiment": "x" * 251}}, "tracking.experiment: must have 250 characters at most"),
        ({"tracking": {"uri": "x" * 10_001}}, "tracking.uri: must have 10,000 characters at most"),
    ],
    ids=range(21),
)
def test_nothing_huge_is_taken(changes: dict[Any, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_study({**yaml.safe_load(STUDY), **changes})
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 250


def test_a_number_that_python_does_not_read(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.write_text(file.read_text().replace("steps: 6000", f"steps: {'9' * 5000}"))
    assert refused(file) == f"{file}: a number in it has more than 4,300 digits"


def test_the_longest_name_is_taken() -> None:
    assert make_study({**yaml.safe_load(STUDY), "name": "n" * 250, "steps": 2**63 - 1}).steps == 2**63 - 1


def test_aliases_that_stand_for_too_much(tmp_path: Path) -> None:
    lines = ["name: a", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    file = tmp_path / "study.yaml"
    file.write_text("\n".join(lines))
    assert refused(file) == f"{file}: its aliases (*name) stand for more than 100,000 values"
    file.write_text("name: a\nset: &s {x: *s}\n")
    assert len(refused(file)) < 1000


def test_special_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # which nobody writes to
    for path in (Path("/dev/zero"), tmp_path / "pipe"):
        assert refused(path) == f"cannot read {path}: it is a device, a pipe or a socket, not a file"
    assert refused(tmp_path) == f"cannot read {tmp_path}: Is a directory"


def test_a_shells_own_pipe_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, STUDY.encode())
    os.close(writer)
    assert load_study(f"/dev/fd/{reader}").name == "quick"
    os.close(reader)


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_study(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nseeds: [0\n", "line 2: the list that begins here lacks its ']' or a comma"),
        ("set: {update.lr: 1\n", "line 1: what begins here with '{' lacks its '}' or a comma"),
        ("name: a: b\n", "line 1, column 8: a ':' that belongs to no key"),
        ("name:\n\ta\n", "line 2, column 1: a tab; indent by spaces"),
        ("name: [", "line 1, column 8: a list, a '{' or a quote is not closed"),
        ("name: &\n", "line 1, column 8: expected alphabetic or numeric character"),
        ("- a\n- b\n", "must hold 'key: value' lines"),
        ("name: a\nname: b\n", "line 2, column 1: 'name' is there twice"),
        ("task: 2021-13-45\n", "month must be in 1..12"),
        ("[" * 5000, "its lists and mappings are nested too deeply"),
        ("? [1, 2]\n: 3\n", "line 1, column 3: a key must be a word"),
    ],
)
def test_what_is_no_study_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=str(file)) as caught:
        load_study(file)
    assert message in str(caught.value)
    with pytest.raises(UserError, match=r"cannot read .*absent\.yaml: No such file"):
        load_study(tmp_path / "absent.yaml")


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
