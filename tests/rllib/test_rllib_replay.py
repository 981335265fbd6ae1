"""Prioritised replay and demonstrations through the algorithm."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tdmpc_ray.core.replay.prioritized import PrioritizedReplay
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2, TDMPC2Config
from tdmpc_ray.rllib.evaluation.of_checkpoints import evaluate_checkpoint
from tdmpc_ray.rllib.learning.learner import AgentLearner

pytestmark = pytest.mark.usefixtures("local_ray")
PRIORITIZED = {"data.priority_alpha": 0.6, "data.priority_beta": 0.4}


def cartpole(overrides: dict[str, Any], task: str = "cartpole-balance") -> TDMPC2Config:
    config = TDMPC2Config().environment(task)
    config.training(
        model_size="tiny",
        overrides={**overrides, "data.seed_steps": 60},
        steps_per_iteration=80,
        updates_per_call=20,
    )
    return config.debugging(seed=0, log_level="ERROR")


def learner(algo: TDMPC2) -> AgentLearner:
    return algo.learner_group._learner


def test_updates_move_the_priorities_and_a_checkpoint_keeps_them(
    tmp_path: Path, tiny_overrides: dict[str, Any]
) -> None:
    algo = cartpole({**tiny_overrides, **PRIORITIZED}).build_algo()
    report = algo.train()["report"]
    replay = learner(algo).replay
    assert isinstance(replay, PrioritizedReplay)
    priorities = replay.priorities[replay.valid[: len(replay)]]
    assert report["train/td_error"] > 0
    # At most 8 of a batch in each of 80 updates; what is new has the largest priority there was.
    assert len(np.unique(priorities)) > 30
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    kept = replay.priorities.copy()
    algo.train()
    again = TDMPC2.from_checkpoint(path)
    np.testing.assert_array_equal(learner(again).replay.priorities, kept)
    again.train()
    assert not np.array_equal(learner(again).replay.priorities[: len(kept)], kept)
    algo.stop()
    again.stop()


def test_episodes_of_one_agent_are_demonstrations_for_the_next(
    tmp_path: Path, tiny_overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    algo = cartpole(tiny_overrides).build_algo()
    algo.train()
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    algo.stop()
    played = evaluate_checkpoint(path, 2, seed=5, record=tmp_path / "shown")
    files = sorted((tmp_path / "shown").iterdir())
    assert [file.name for file in files] == [f"cartpole-balance-seed5-000{i}.npz" for i in (0, 1)]
    for file, value in zip(files, played["returns"], strict=True):
        assert np.load(file)["reward"].sum() == pytest.approx(value, rel=1e-5)

    monkeypatch.chdir(tmp_path)
    shown = {"data.demonstrations": "shown", "data.demonstration_share": 0.5}
    config = cartpole({**tiny_overrides, **PRIORITIZED, **shown})
    assert config.agent().data.demonstrations == str(tmp_path / "shown")
    algo = config.build_algo()
    batches = []
    step = learner(algo)._updater.step
    monkeypatch.setattr(
        learner(algo)._updater, "step", lambda batch, noise: batches.append(batch) or step(batch, noise)
    )
    algo.train()
    recorded = np.concatenate([np.load(file)["obs"] for file in files])
    for batch in batches:
        assert batch.obs.shape[1] == 8
        assert 0 < batch.weight[4:].min() <= batch.weight[4:].max() == 1.0
        assert all((recorded == first).all(1).any() for first in batch.obs[0, 4:].numpy())
    algo.stop()


def test_demonstrations_of_another_task_are_refused(tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
    np.savez(tmp_path / "a.npz", obs=np.zeros((5, 3)), action=np.zeros((4, 1)), reward=np.zeros(4))
    config = cartpole({**tiny_overrides, "data.demonstrations": str(tmp_path)})
    with pytest.raises(UserError, match=r"a\.npz has obs of shape \(3,\) per step, this run needs \(5,\)"):
        config.build_algo()


def test_demonstrations_that_end_in_a_terminal_state_are_refused(
    tmp_path: Path, tiny_overrides: dict[str, Any]
) -> None:
    """As live data is, unless something is said of terminations."""
    arrays = {"obs": np.zeros((5, 5)), "action": np.zeros((4, 1)), "reward": np.zeros(4)}
    np.savez(tmp_path / "a.npz", **arrays, terminated=True)
    config = cartpole({**tiny_overrides, "data.demonstrations": str(tmp_path)})
    with pytest.raises(UserError, match=r"a\.npz ends in a terminal state"):
        config.copy().build_algo()
    config.training(overrides={"model.episodic": False}).build_algo().stop()


@pytest.mark.parametrize(("share", "what"), [(0.05, "none"), (0.95, "all")])
def test_a_share_of_demonstrations_that_is_none_or_all_is_refused(
    share: float, what: str, tmp_path: Path, tiny_overrides: dict[str, Any]
) -> None:
    shown = {"data.demonstrations": str(tmp_path), "data.demonstration_share": share}
    with pytest.raises(UserError, match=f"demonstration_share={share} of a learner's 8 sequences is {what}"):
        cartpole({**tiny_overrides, **shown}).validate()
    cartpole({**tiny_overrides, **shown, "data.demonstrations": ""}).validate()
    cartpole({**tiny_overrides, **shown, "update.batch_size": 20}).validate()
