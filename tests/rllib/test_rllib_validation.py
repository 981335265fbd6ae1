"""Episodes that are kept from training: no update sees them, and the losses on them are reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counting import counting, learner
from test_rllib_offline import config as offline
from test_rllib_offline import folder  # noqa: F401  a fixture
from test_rllib_recorded import trained

from tdmpc_ray.core.agents import find_agent
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import DataConfig, agent_config
from tdmpc_ray.core.replay.prioritized import make_replay
from tdmpc_ray.core.replay.validation import is_held_out
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2
from tdmpc_ray.rllib.checkpoints.manifest import chunk_names, read_manifest
from tdmpc_ray.rllib.checkpoints.recorded import episodes_of, source_of
from tdmpc_ray.rllib.learning.updates import UpdateLoop

SHARE = 0.25
LOSSES = {
    f"validation/{prefix}{name}" for prefix in ("", "seen_") for name in ("td_error", "consistency", "reward")
}


def episodes(replay: Any) -> set[float]:
    return set(replay.obs[: len(replay), 0])


def held_out(algo: TDMPC2) -> Any:
    return learner(algo)._held_out._replay


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3, 0.49])
def test_a_share_is_kept_evenly_and_never_the_first(share: float) -> None:
    kept = is_held_out(np.arange(1, 1001), share)
    assert kept.sum() == pytest.approx(1000 * share, abs=1)
    assert not kept[0]
    assert np.diff(np.flatnonzero(kept)).max() <= int(1 / share) + 1


def test_no_update_sees_them_and_their_losses_are_reported(
    local_ray: None, tmp_path: Path, tiny_overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[float] = set()
    on_device = UpdateLoop._on_device

    def watched(loop: UpdateLoop, parts: Any) -> Any:
        seen.update(np.unique(parts[0].obs[..., 0]).tolist())
        return on_device(loop, parts)

    monkeypatch.setattr(UpdateLoop, "_on_device", watched)
    config = counting({**tiny_overrides, "data.validation_share": SHARE})
    algo = config.env_runners(num_envs_per_env_runner=2).build_algo()
    try:
        reports = [algo.train()["report"] for _ in range(5)]
        kept, learned = held_out(algo), learner(algo).replay
        assert kept.transitions_added + learned.transitions_added == algo.env_steps
        assert 0.1 < kept.transitions_added / algo.env_steps < 0.4
        assert len(episodes(kept)) >= 3
        assert not episodes(kept) & episodes(learned)
        assert not episodes(kept) & seen
        assert set(reports[-1]) >= LOSSES
        assert all(reports[-1][name] > 0 for name in LOSSES)
        folder = Path(algo.save_to_path(tmp_path / "checkpoint_000000"))
        before = {name: getattr(kept, name)[: len(kept)].copy() for name in ("obs", "action", "next_row")}
        count = learner(algo)._held_out._episodes
        networks = {k: v.clone() for k, v in learner(algo)._rl_module.networks.state_dict().items()}
    finally:
        algo.stop()
    manifest = read_manifest(folder)
    shard = manifest["replay"]["shards"][0]["held_out"]
    assert {*shard["chunks"], shard["state"]} <= chunk_names(manifest)
    again = TDMPC2.from_checkpoint(str(folder))
    try:
        assert learner(again)._held_out._episodes == count
        for name, value in before.items():
            np.testing.assert_array_equal(getattr(held_out(again), name)[: len(value)], value)
        for name, value in learner(again)._rl_module.networks.state_dict().items():
            assert torch.equal(value, networks[name])
        again.train()
        assert not episodes(held_out(again)) & episodes(learner(again).replay)
    finally:
        again.stop()


def test_a_dataset_of_the_run_has_them_too(tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
    checkpoint = trained("counting", tiny_overrides, tmp_path, settings={"data.validation_share": SHARE})
    assert sum(map(len, episodes_of(checkpoint))) == source_of(checkpoint).steps >= 160
    with pytest.raises(UserError, match=r"nothing tells which of its steps came first: leave --first out"):
        list(episodes_of(checkpoint, 100))


def test_a_checkpoint_without_any_yet_is_whole(
    local_ray: None, tmp_path: Path, tiny_overrides: dict[str, Any]
) -> None:
    """Whoever collects what no checkpoint needs has to leave what says so."""
    algo = counting({**tiny_overrides, "data.validation_share": 0.01}).build_algo()
    try:
        algo.train()
        folder = Path(algo.save_to_path(tmp_path / "checkpoint_000000"))
        manifest = read_manifest(folder)
        shard = manifest["replay"]["shards"][0]["held_out"]
        assert shard["chunks"] == []
        assert shard["state"] in chunk_names(manifest)
        # Whole episodes fit, however small their share of a short run is.
        assert held_out(algo).capacity > 20 + 25
    finally:
        algo.stop()


def test_priorities_do_not_decide_what_losses_are_compared_with() -> None:
    data = DataConfig(capacity=100, priority_alpha=1.0)
    replay = make_replay(data, (1,), 1, 1)
    for episode in range(10):
        obs = np.full((3, 1), episode, np.float32)
        replay.add(str(episode), 0, obs, np.zeros((2, 1)), np.zeros(2), terminated=False, done=True)
    starts = torch.from_numpy(np.flatnonzero(replay.valid))
    replay.set_priorities(starts, torch.where(torch.arange(len(starts)) == 0, 1e6, 1e-6))
    rng = np.random.default_rng(0)
    assert len(replay.sample(200, rng).obs.unique()) == 1
    assert len(replay.sample_at(replay.uniform_starts(200, rng)).obs.unique()) == 10


def test_of_a_dataset_they_are_whole_episodes(folder: Path, tiny_overrides: dict[str, Any]) -> None:  # noqa: F811
    made = offline(folder, {**tiny_overrides, "data.validation_share": SHARE}, total_steps=20).build_algo()
    try:
        learned, kept = learner(made).replay, held_out(made)
        assert kept.transitions_added == 2 * 30
        assert learned.transitions_added == 6 * 30
        every = 8 * (30 - learned.horizon + 1)
        assert kept.num_valid + learned.num_valid == every
        rng = np.random.default_rng(0)
        rewards = [set(replay.sample(500, rng).reward.ravel().tolist()) for replay in (learned, kept)]
        assert not rewards[0] & rewards[1]
        assert len(rewards[1]) > 50
        assert set(made.train()["report"]) >= LOSSES
    finally:
        made.stop()
    with pytest.raises(UserError, match=r"validation_share=0.05 keeps no episode of .* raise it"):
        offline(folder, {**tiny_overrides, "data.validation_share": 0.05}, total_steps=20).build_algo()


def test_a_share_of_half_or_more_is_refused(tiny_overrides: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"data\.validation_share must lie in \[0, 0\.5\)"):
        counting({**tiny_overrides, "data.validation_share": 0.5}).validate()


@pytest.mark.parametrize("algorithm", ["tdmpc2", "tdmpc"])
def test_validation_changes_nothing_and_is_what_an_update_sees(algorithm: str) -> None:
    agent, generator = find_agent(algorithm), torch.Generator().manual_seed(0)
    cfg = agent_config("tiny", overrides={"update.batch_size": 8}, algorithm=algorithm)
    networks = agent.make_networks((5,), 2, cfg.model)
    optimizers = agent.make_optimizers(networks, cfg.update)
    updater = agent.make_updater(networks, cfg.update, 0.9, optimizers, None)
    obs, action = (torch.randn(n, 8, size, generator=generator) for n, size in ((4, 5), (3, 2)))
    batch = Batch(obs, action.tanh(), torch.rand(3, 8, 1), torch.zeros(3, 8, 1), weight=torch.ones(8))
    noise = agent.draw_update(networks, 3, 8, generator)
    before = {name: value.clone() for name, value in networks.state_dict().items()}
    found = updater.validate(batch._replace(weight=None), noise)
    for name, value in networks.state_dict().items():
        assert torch.equal(value, before[name])
    seen = updater.step(batch, noise)
    for name in ("consistency", "reward"):
        assert float(found[name]) == pytest.approx(float(seen[f"loss/{name}"]), rel=1e-3)
    assert updater.td_error is not None
    assert float(found["td_error"]) == pytest.approx(float(updater.td_error.mean()), rel=0.5)
