"""A checkpoint whose predictions are further targets of a run."""

from pathlib import Path
from typing import Any

import gymnasium
import pytest

from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.rllib.acting.module import AgentModule
from tdmpc_ray.rllib.checkpoints.load import MODULE
from tdmpc_ray.rllib.checkpoints.manifest import seal
from tdmpc_ray.rllib.learning.teacher import read_teacher
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.run.checks import prepare


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A checkpoint of networks of cartpole-balance, of size tiny."""
    config = TDMPC2Config().environment("cartpole-balance").training(model_size="tiny")
    box = gymnasium.spaces.Box
    module = AgentModule(
        observation_space=box(-10, 10, (5,)), action_space=box(-1, 1, (1,)), model_config=config.model_config
    )
    module.save_to_path(str(tmp_path / "teacher" / MODULE))
    seal(tmp_path / "teacher")
    return tmp_path / "teacher"


def config_of(teacher: Path, overrides: dict[str, Any], task: str = "cartpole-balance") -> TDMPC2Config:
    settings = {**overrides, "update.teacher": str(teacher), "data.seed_steps": 10}
    config = TDMPC2Config().environment(task).debugging(seed=0, log_level="ERROR")
    return config.training(model_size="tiny", overrides=settings, steps_per_iteration=25)


def test_a_run_learns_from_it_and_says_what_that_costs(
    teacher: Path, tiny_overrides: dict[str, Any], local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = {}
    monkeypatch.chdir(teacher.parent)
    for place in (Path("teacher"), Path()):
        algo = config_of(place, tiny_overrides).build_algo() if place.name else _alone(tiny_overrides)
        reports[place.name] = algo.train()["report"]
        algo.stop()
    assert reports["teacher"]["train/loss/teacher"] > 0
    assert "train/loss/teacher" not in reports[""]
    assert reports["teacher"]["time/train_flops"] > reports[""]["time/train_flops"]


def _alone(overrides: dict[str, Any]) -> Any:
    return config_of(Path("none"), overrides).training(overrides={"update.teacher": ""}).build_algo()


def test_one_that_does_not_fit_is_refused(teacher: Path, tiny_overrides: dict[str, Any]) -> None:
    assert read_teacher(config_of(teacher, tiny_overrides)).obs_shape == (5,)
    learned = "update.teacher has learned cartpole-balance, the run learns "
    with pytest.raises(UserError, match=f"{learned}cartpole-swingup"):
        read_teacher(config_of(teacher, tiny_overrides, "cartpole-swingup"))
    with pytest.raises(UserError, match=f"{learned}cartpole-balance, walker-walk"):
        read_teacher(config_of(teacher, tiny_overrides, "cartpole-balance+walker-walk"))
    with pytest.raises(UserError, match="no checkpoint at"):
        read_teacher(config_of(teacher.parent / "nothing", tiny_overrides))
    values = {"name": "s", "task": "cartpole-swingup", "steps": 2000, "model_sizes": ["tiny"]}
    with pytest.raises(UserError, match=f"{learned}cartpole-swingup"):
        prepare(make_study({**values, "set": {"update.teacher": str(teacher)}}))
