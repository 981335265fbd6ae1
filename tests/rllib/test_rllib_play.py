"""Episodes played without Ray, in environments that fail."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from failing_env import FailingEnv

from tdmpc_ray.envs import register_task, registered
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.evaluation.episodes import play
from tdmpc_ray.rllib.evaluation.on_runners import _summary


class Idle:
    """An agent that does nothing."""

    obs = "state"

    def act(self, obs: np.ndarray, is_first: np.ndarray, task: str) -> np.ndarray:
        assert np.isfinite(obs).all()
        return np.zeros((len(obs), 1), np.float32)


class Noted(FailingEnv):
    """Notes what it is seeded with."""

    def __init__(self, seeds: list[int]) -> None:
        super().__init__({})
        self.noted = seeds

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        if seed is not None:
            self.noted.append(seed)
        return super().reset(seed=seed)


def register(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> None:
    monkeypatch.setattr(registered, "_tasks", {})
    register_task("lab-arm", partial(make, config), episode_length=10)


def make(config: dict[str, Any], render_mode: str | None = None) -> FailingEnv:
    return FailingEnv(config)


@pytest.mark.parametrize("kind", ["raise", "nan"])
def test_a_cut_episode_is_played_again_and_none_is_overwritten(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, {"kind": kind, "step": 4, "once": tmp_path / "once"})
    played = play(Idle(), "lab-arm", 3, seed=0, record=tmp_path / "episodes")
    assert (played["returns"], played["lengths"]) == ([55] * 3, [10] * 3)
    (fault,) = played["faults"]
    assert fault.startswith("task 'lab-arm', step 4: ")
    files = sorted((tmp_path / "episodes").iterdir())
    assert [file.name[-8:-4] for file in files] == ["0000", "0001", "0002"]
    assert all(np.load(file)["reward"].sum() == 55 for file in files)


class Lucky(FailingEnv):
    """Says `success` only where there is one: in every second episode."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated, truncated, {"success": True} if truncated and self.lucky else info

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        start = super().reset(seed=seed)
        self.lucky = self.np_random.uniform() < 0.5
        return start


def test_success_that_is_only_said_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered, "_tasks", {})
    register_task("lucky", lambda render_mode=None: Lucky({}), episode_length=10)
    played = play(Idle(), "lucky", 8, seed=0)
    assert set(played["successes"]) == {None, 1.0}
    outcomes = list(zip(played["returns"], played["lengths"], played["successes"], strict=True))
    assert _summary(outcomes)["success_mean"] == played["successes"].count(1.0) / 8
    assert "success_mean" not in _summary([(1.0, 1, None)])


def test_neighbouring_seeds_share_no_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered, "_tasks", {})
    seeds: list[int] = []
    register_task("lab-arm", lambda render_mode=None: Noted(seeds), episode_length=10)
    for seed in (0, 1):
        play(Idle(), "lab-arm", 3, seed=seed)
    assert len(set(seeds)) == 6


def test_where_every_episode_is_cut_it_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, {"kind": "nan", "step": 4})
    with pytest.raises(UserError, match=r"cut every episode: .*task 'lab-arm', step 4: number 0"):
        play(Idle(), "lab-arm", 2, seed=0)
