"""Checkpoints of runs on one's own environments: played again, and used where these are not installed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from agents import run_checkpoint
from ray import cloudpickle
from tiny import TINY

from tdmpc_ray import cli
from tdmpc_ray.core.saved_agent import read_agent
from tdmpc_ray.envs import register_task, registered
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.rllib.checkpoints.manifest import seal
from tdmpc_ray.rllib.evaluation.of_checkpoints import evaluate_checkpoint, load_agent
from tdmpc_ray.studies.models.model_files import write_slim

ARMS = """
import gymnasium
import numpy as np


class Arm(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-10, 10, (2,))
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,))
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None, reward=1.0):
        self.render_mode, self.reward = render_mode, reward

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample() * 0, {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample() * 0, self.reward, False, self.steps == 5, {}

    def render(self):
        return np.zeros((32, 32, 3), np.uint8)


class LongArm(Arm):
    observation_space = gymnasium.spaces.Box(-10, 10, (3,))


SIZE = 5
"""
Import = Callable[[str], ModuleType]


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered, "_tasks", {})
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def import_lab(tmp_path: Path) -> Iterator[Import]:
    """Writes and imports a module of this name, whose folder is not on the path."""
    known = set(sys.modules)

    def write(name: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(ARMS)
        sys.path.append(str(tmp_path))
        importlib.invalidate_caches()
        try:
            return importlib.import_module(name)
        finally:
            sys.path.remove(str(tmp_path))

    yield write
    for name in set(sys.modules) - known:
        if name.startswith("lab_"):
            del sys.modules[name]


def config_of(env: object, **env_config: object) -> TDMPC2Config:
    config = TDMPC2Config().environment(env, env_config=env_config)
    config.training(model_size="tiny", overrides={**TINY, "planner.method": "policy"})
    return config if isinstance(env, str) else config.training(episode_length=5)


def test_a_class_is_built_again_as_it_was(import_lab: Import, tmp_path: Path) -> None:
    lab = import_lab("lab_arms")
    checkpoint = run_checkpoint(tmp_path / "run", config_of(lab.Arm, reward=2.0))
    played = evaluate_checkpoint(checkpoint, 2, grid=tmp_path / "frames.png", record=tmp_path / "shown")
    assert (played["task"], played["returns"], played["lengths"]) == ("Arm", [10.0] * 2, [5] * 2)
    assert (tmp_path / "frames.png").is_file()
    assert len(list((tmp_path / "shown").iterdir())) == 2


def test_a_class_of_a_notebook_goes_with_the_checkpoint(import_lab: Import, tmp_path: Path) -> None:
    lab = import_lab("lab_notebook")
    cloudpickle.register_pickle_by_value(lab)  # as `__main__` is
    try:
        checkpoint = run_checkpoint(tmp_path / "run", config_of(lab.Arm))
    finally:
        cloudpickle.unregister_pickle_by_value(lab)
    del sys.modules["lab_notebook"]
    assert evaluate_checkpoint(checkpoint, 1)["returns"] == [5.0]


def test_the_command_finds_the_class_in_its_folder_or_takes_another(
    import_lab: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_checkpoint(tmp_path / "run", config_of(import_lab("lab_arms").Arm, reward=2.0))
    import_lab("lab_others")
    del sys.modules["lab_arms"], sys.modules["lab_others"]
    play = ["evaluate", str(tmp_path / "run"), "--episodes", "1"]
    assert cli.main(play) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "error: cannot import lab_arms:Arm (No module named 'lab_arms'): install it, " in line
    assert line.endswith("or name an environment with --env MODULE:CLASS")

    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.setattr(sys, "path", [*sys.path, str(tmp_path)])
        (tmp_path / "lab_arms.py").rename(tmp_path / "lab_arms.txt")
        assert cli.main([*play, "--env", "lab_others:Arm"]) == 0
        assert "mean return 10.0" in capsys.readouterr().out, "with the run's env_config"
        (tmp_path / "lab_arms.txt").rename(tmp_path / "lab_arms.py")
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    assert cli.main(play) == 0
    assert "episode 1: return 10.0, 5 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lab_arms", "--env lab_arms: write MODULE:CLASS, such as --env my_lab.envs:Arm"),
        ("lab_none:Arm", "--env lab_none:Arm cannot be imported (No module named 'lab_none'): install it, "),
        ("lab_arms:Leg", "--env lab_arms:Leg cannot be imported (module 'lab_arms' has no attribute 'Leg'"),
        ("lab_arms:SIZE", "--env lab_arms:SIZE is no class or function but int"),
        (
            "lab_arms:LongArm",
            "environment 'LongArm' has observations (3,) and actions (1,); "
            "this agent was trained with observations (2,) and actions (1,)",
        ),
    ],
)
def test_an_environment_that_cannot_be_taken(
    name: str, message: str, import_lab: Import, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_checkpoint(tmp_path / "run", config_of(import_lab("lab_arms").Arm))
    assert cli.main(["evaluate", str(tmp_path / "run"), "--env", name]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")


def test_a_task_that_only_the_run_had_registered(import_lab: Import, tmp_path: Path) -> None:
    lab = import_lab("lab_arms")
    register_task("lab-arm", lab.Arm, episode_length=5)
    checkpoint = run_checkpoint(tmp_path / "run", config_of("lab-arm"))
    registered._tasks.clear()
    assert evaluate_checkpoint(checkpoint, 1)["returns"] == [5.0]
    register_task("lab-arm", lambda render_mode=None: lab.Arm(reward=3.0), episode_length=5)
    assert evaluate_checkpoint(checkpoint, 1)["returns"] == [15.0], "what is registered here comes first"
    assert evaluate_checkpoint(checkpoint, 1, env=lab.Arm)["returns"] == [5.0]

    registered._tasks.clear()
    del sys.modules["lab_arms"]
    assert load_agent(checkpoint).task == "lab-arm"
    write_slim(checkpoint, tmp_path / "model")
    assert read_agent(tmp_path / "model").description.task == "lab-arm", "a model needs no environment"
    with pytest.raises(UserError, match=r"cannot import lab_arms:Arm .* or name an environment with --env "):
        evaluate_checkpoint(checkpoint, 1)


def test_an_environment_that_is_known_by_name_alone(import_lab: Import, tmp_path: Path) -> None:
    """Registered with RLlib in another process, or a whole vector in one object."""
    config = config_of(import_lab("lab_arms").Arm)
    run_checkpoint(tmp_path / "run", config)
    for changes, message in (
        ({"env": "gone-arm"}, "environment 'gone-arm' is not registered with RLlib here: name an environ"),
        ({"gym_env_vectorize_mode": "vector_entry_point"}, "environment 'Arm' is a whole vector of them: "),
    ):
        state = {**config.get_state(), **changes}
        info = {"ctor_args_and_kwargs": ((state,), {})}
        write_config(tmp_path / "run", cloudpickle.dumps(info))
        with pytest.raises(UserError, match=f"^{message}"):
            evaluate_checkpoint(tmp_path / "run", 1)


def test_a_config_that_is_damaged_or_missing(import_lab: Import, tmp_path: Path) -> None:
    checkpoint = run_checkpoint(tmp_path / "run", config_of(import_lab("lab_arms").Arm))
    (checkpoint / "class_and_ctor_args.pkl").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"class_and_ctor_args\.pkl is damaged"):
        evaluate_checkpoint(checkpoint, 1)
    write_config(checkpoint, b"of another kind")
    with pytest.raises(UserError, match=r"^the config in .* cannot be read"):
        evaluate_checkpoint(checkpoint, 1)
    (checkpoint / "class_and_ctor_args.pkl").unlink()
    with pytest.raises(UserError, match="is no checkpoint of a run: its environment is not known"):
        evaluate_checkpoint(checkpoint, 1)


def write_config(checkpoint: Path, config: bytes) -> None:
    (checkpoint / "class_and_ctor_args.pkl").write_bytes(config)
    seal(checkpoint)
