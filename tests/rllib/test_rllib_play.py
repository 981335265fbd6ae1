"""Episodes played without Ray, in environments that fail."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from failing_env import FailingEnv

from tdmpc_ray.envs import register_task, registered
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.evaluate import play


class Idle:
    """An agent that does nothing."""

    obs = "state"

    def act(self, obs: np.ndarray, is_first: np.ndarray, task: str) -> np.ndarray:
        assert np.isfinite(obs).all()
        return np.zeros((len(obs), 1), np.float32)


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


def test_where_every_episode_is_cut_it_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, {"kind": "nan", "step": 4})
    with pytest.raises(UserError, match=r"cut every episode: .*task 'lab-arm', step 4: number 0"):
        play(Idle(), "lab-arm", 2, seed=0)
