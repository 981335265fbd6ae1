"""Episodes on disk beside the run's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tdmpc_ray.core.config import DataConfig, agent_config
from tdmpc_ray.core.replay.prioritized import PrioritizedReplay
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.datasets.demonstrations import load_demonstrations
from tdmpc_ray.datasets.episode import EpisodeRecord
from tdmpc_ray.errors import UserError


def episode(steps: int, value: float, **changes: Any) -> dict[str, Any]:
    return {
        "obs": np.full((steps + 1, 2), value, np.float32),
        "action": np.zeros((steps, 1), np.float32),
        "reward": np.full(steps, value, np.float32),
        "terminated": False,
        **changes,
    }


def shown_in(folder: Path, **more: Any) -> SequenceReplay:
    """The demonstrations in a folder, of observations (2,), actions (1,) and sequences of 3."""
    settings = {key: more.pop(key) for key in ("priority_alpha",) if key in more}
    return load_demonstrations(DataConfig(demonstrations=str(folder), **settings), (2,), 1, 3, **more)


def save_episode(path: Path, **arrays: Any) -> None:
    np.savez(path, **arrays)


def test_a_record_is_what_is_read(tmp_path: Path) -> None:
    record = EpisodeRecord(np.zeros(2, np.float32))
    for step in range(4):
        record.add(np.full(2, step + 1, np.float32), np.array([step / 4]), step + 0.5)
    record.save(tmp_path / "new" / "0.npz", terminated=True, task="lab")
    replay = shown_in(tmp_path / "new")
    assert replay.obs[:5, 0].tolist() == [0, 1, 2, 3, 4]
    assert replay.action[:4, 0].tolist() == [0, 0.25, 0.5, 0.75]
    assert replay.reward[:4].tolist() == [0.5, 1.5, 2.5, 3.5]
    assert replay.terminated[:5].tolist() == [False, False, False, True, False]


def test_every_sequence_of_every_episode_is_kept(tmp_path: Path) -> None:
    for number, steps in enumerate((5, 2, 9)):
        save_episode(tmp_path / f"{number}.npz", **episode(steps, number))
    replay = shown_in(tmp_path)
    assert (replay.num_valid, replay.transitions_added) == (3 + 0 + 7, 16)
    batch = replay.sample(500, np.random.default_rng(0))
    assert set(batch.reward.unique().tolist()) == {0.0, 2.0}
    assert (batch.obs[:-1] == batch.reward).all()


def test_they_are_the_end_of_a_batch_and_count_one(tmp_path: Path) -> None:
    save_episode(tmp_path / "0.npz", **episode(9, 7.0))
    shown, rng = shown_in(tmp_path), np.random.default_rng(0)
    for own in (
        SequenceReplay(30, (2,), 1, 3),
        PrioritizedReplay(30, (2,), 1, 3, alpha=0.6, beta=0.4, new="max"),
    ):
        own.add("e", 0, **{**episode(9, 1.0), "done": True})
        batch = own.sample(6, rng).followed_by(shown.sample(2, rng))
        assert batch.obs.shape == (4, 8, 2)
        assert batch.reward[:, :, 0].tolist() == [[1.0] * 6 + [7.0] * 2] * 3
        assert batch.start is not None
        assert len(batch.start) == 6
        if isinstance(own, PrioritizedReplay):
            assert batch.weight is not None
            torch.testing.assert_close(batch.weight[-2:], torch.ones(2))
        else:
            assert batch.weight is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs": np.zeros((10, 3), np.float32)}, r"has obs of shape \(3,\) per step, this run needs \(2,\)"),
        (
            {"action": np.full((9, 1), 1.5, np.float32)},
            r"has 1\.5 as number 0 of the action at step 0, outside of",
        ),
        ({"reward": np.zeros(8, np.float32)}, "has 8 of 'reward' for 9 actions: give 9"),
        ({"action": np.zeros(9, np.float32)}, r"has actions of shape \(9,\): give \(steps, numbers\)"),
        ({"reward": np.full(9, "x")}, "has reward of <U1, shape .*: give numbers"),
        (
            {"reward": np.full(9, np.nan, np.float32)},
            "a number in 'reward' that is not finite, at step 0",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save_episode(tmp_path / "bad.npz", **episode(9, 0.0, **changes))
    with pytest.raises(UserError, match=rf"bad\.npz.* {message}"):
        shown_in(tmp_path)


def test_a_terminal_state_in_a_run_without_terminations_is_refused(tmp_path: Path) -> None:
    save_episode(tmp_path / "0.npz", **episode(9, 0.0))
    save_episode(tmp_path / "1.npz", **episode(9, 0.0, terminated=True))
    assert shown_in(tmp_path).terminated.sum() == 1
    with pytest.raises(UserError, match=r"1\.npz ends in a terminal state.* set model\.episodic to true"):
        shown_in(tmp_path, may_terminate=False)


def test_files_that_are_no_episodes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no episodes: give episodes as \.npz, a file of robomimic"):
        shown_in(tmp_path)
    save_episode(tmp_path / "0.npz", **episode(2, 0.0))
    with pytest.raises(UserError, match=r"has planner\.horizon=3 steps"):
        shown_in(tmp_path)
    np.savez(tmp_path / "1.npz", obs=np.zeros((2, 2)), action=np.zeros((1, 1)))
    with pytest.raises(UserError, match=r"1\.npz has no 'reward'"):
        shown_in(tmp_path)
    (tmp_path / "1.npz").write_bytes(b"x")
    with pytest.raises(UserError, match=r"cannot read the demonstration .*1\.npz"):
        shown_in(tmp_path)


def test_of_a_folder_with_several_tasks_a_run_takes_its_own(tmp_path: Path) -> None:
    for number, task in enumerate(("mw-reach", "mw-push@sparse")):
        save_episode(tmp_path / f"{number}.npz", **episode(9, number), task=task)
    for task, rewards in (
        ("mw-push", {1.0}),
        ("mw-reach@sparse", {0.0}),
        ("mine", {0.0, 1.0}),
        ("", {0.0, 1.0}),
    ):
        replay = shown_in(tmp_path, task=task)
        assert set(replay.sample(50, np.random.default_rng(0)).reward.unique().tolist()) == rewards


def test_several_tasks_are_told_apart_by_name(tmp_path: Path) -> None:
    for number, task in enumerate(("walk", "run")):
        save_episode(tmp_path / f"{number}.npz", **episode(9, number), task=task)
    replay = shown_in(tmp_path, tasks=("run", "walk"))
    batch = replay.sample(50, np.random.default_rng(0))
    assert batch.task is not None
    assert (batch.task == 1 - batch.reward[0, :, 0]).all()
    with pytest.raises(UserError, match="is of task 'walk', not of run, jump"):
        shown_in(tmp_path, tasks=("run", "jump"))


def test_an_empty_place_is_none() -> None:
    overrides = {"data.demonstrations": None}  # what YAML makes of `--set data.demonstrations=`
    assert agent_config("tiny", overrides=overrides).data.demonstrations == ""
