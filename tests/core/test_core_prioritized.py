"""Prioritised replay: the sum tree against plain arrays, the replay against its definition, the losses."""

import numpy as np
import pytest
import torch
from replays import copy_into

from tdmpc_ray.core.agents.tdmpc2.config import MODEL_SIZES, UpdateConfig
from tdmpc_ray.core.agents.tdmpc2.losses import world_model_loss
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import agent_config
from tdmpc_ray.core.replay.prioritized import PrioritizedReplay, make_replay
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.core.replay.sum_tree import SumTree

HORIZON = 3


@pytest.mark.parametrize("size", [1, 31, 32, 33, 1024, 1025, 40_000])
def test_a_sum_tree_is_an_array_with_a_total(size: int) -> None:
    rng = np.random.default_rng(size)
    tree, plain = SumTree(size), np.zeros(size)
    for _ in range(20):
        index = rng.integers(size, size=rng.integers(1, 50))
        weight = rng.random(len(index)) * 10.0 ** rng.integers(-9, 9)
        tree.set(index, weight)
        plain[index] = weight
        np.testing.assert_array_equal(tree[np.arange(size)], plain)
        assert tree.total == pytest.approx(plain.sum(), rel=1e-12)
    tree.set(np.arange(size), 0.0)
    assert tree.total == 0.0
    with pytest.raises(ValueError, match="zero"):
        tree.draw(1, rng)


@pytest.mark.parametrize("size", [1, 33, 2000])
def test_draws_follow_the_weights_and_never_hit_a_zero(size: int) -> None:
    rng = np.random.default_rng(0)
    weights = rng.random(size) ** 4 * (rng.random(size) < 0.5)
    weights[size // 2] = 1.0
    tree = SumTree(size)
    tree.set(np.arange(size), weights)
    draws = np.concatenate([tree.draw(256, rng) for _ in range(400)])
    counts = np.bincount(draws, minlength=size)
    assert not counts[weights == 0].any()
    expected = len(draws) * weights / weights.sum()
    # One draw from each of 256 equal parts of the total: less than binomial noise.
    assert (np.abs(counts - expected) <= 5 * np.sqrt(expected) + 1).all()


def test_rounding_never_leads_to_a_zero() -> None:
    """Weights of very different sizes, so that sums of blocks round."""
    rng = np.random.default_rng(0)
    tree = SumTree(5000)
    weights = np.where(rng.random(5000) < 0.5, 0.0, 10.0 ** rng.uniform(-17, 3, 5000))
    tree.set(np.arange(5000), weights)
    for _ in range(2000):
        assert (weights[tree.draw(64, rng)] > 0).all()


def prioritized(capacity: int, alpha: float = 1.0, beta: float = 1.0, new: str = "max") -> PrioritizedReplay:
    return PrioritizedReplay(capacity, (2,), 1, HORIZON, alpha=alpha, beta=beta, new=new)


def add_episode(replay: SequenceReplay, name: str, steps: int) -> None:
    obs = np.stack([np.arange(steps + 1.0), np.zeros(steps + 1)], -1).astype(np.float32)
    action = np.zeros((steps, 1), np.float32)
    replay.add(name, 0, obs, action, np.zeros(steps, np.float32), terminated=False, done=True)


def test_starts_have_a_priority_exactly_while_they_are_valid() -> None:
    replay, rng = prioritized(50), np.random.default_rng(0)
    for number in range(60):
        add_episode(replay, str(number), int(rng.integers(1, 12)))
        np.testing.assert_array_equal(replay.priorities > 0, replay.valid[: len(replay)])
        assert replay.num_valid == np.count_nonzero(replay.valid)
        if replay.num_valid:
            batch = replay.sample(8, rng)
            replay.set_priorities(batch.start, torch.rand(8))


def test_probabilities_and_importance_weights_are_as_defined() -> None:
    replay = prioritized(20, alpha=0.5, beta=0.7)
    add_episode(replay, "a", 6)  # starts 0 to 3
    replay.set_priorities(torch.arange(4), torch.tensor([0.0, 1.0, 4.0, 9.0]))
    rng = np.random.default_rng(0)
    share = np.array([1e-3, 1.0, 2.0, 3.0]) / 6.001
    counts = sum(np.bincount(replay.sample(64, rng).start, minlength=4) for _ in range(500))
    np.testing.assert_allclose(counts / counts.sum(), share, atol=0.005)
    batch = replay.sample(64, rng)
    expected = (4 * share[batch.start]) ** -0.7
    np.testing.assert_allclose(batch.weight, expected / expected.max(), rtol=1e-5)
    replay.beta = 0.0
    assert set(replay.sample(64, rng).weight.tolist()) == {1.0}


@pytest.mark.parametrize(("new", "priority"), [("max", 7.0), ("one", 1.0)])
def test_new_sequences_have_the_largest_priority_or_one(new: str, priority: float) -> None:
    replay = prioritized(40, new=new)
    add_episode(replay, "a", 6)
    assert set(replay.priorities[:4]) == {1.0}
    replay.set_priorities(torch.tensor([1]), torch.tensor([7.0]))
    replay.set_priorities(torch.tensor([1]), torch.tensor([2.0]))
    add_episode(replay, "b", 3)
    assert replay.priorities[7] == priority


def test_errors_that_are_not_finite_change_nothing() -> None:
    replay = prioritized(40)
    add_episode(replay, "a", 6)
    replay.set_priorities(torch.arange(4), torch.tensor([2.0, torch.nan, torch.inf, 1e30]))
    assert replay.priorities[:4].tolist() == [2.0, 1.0, 1.0, 1e6]
    replay.set_priorities(torch.arange(4), torch.full((4,), torch.nan))
    assert np.isfinite(replay.sample(8, np.random.default_rng(0)).weight).all()


def test_weights_count_the_starts_of_all_replicas() -> None:
    """Of 3 and 1 starts in two replays that give half of each batch: the one is drawn 3 times as often."""
    large, small = prioritized(40), prioritized(40)
    add_episode(large, "a", HORIZON + 2)
    add_episode(small, "a", HORIZON)
    large.share_of = small.share_of = 2.0
    rng = np.random.default_rng(0)
    weights = [(batch := replay.sample(8, rng)).weight * batch.largest_weight for replay in (large, small)]
    assert weights[0].tolist() == pytest.approx([1.5] * 8)
    assert weights[1].tolist() == pytest.approx([0.5] * 8)


def test_what_is_asked_for_is_what_is_made() -> None:
    assert type(make_replay(agent_config("tiny").data, (2,), 1, HORIZON)) is SequenceReplay
    overrides = {"data.priority_alpha": 0.6, "data.priority_new": "one", "data.capacity": 100}
    replay = make_replay(agent_config("tiny", overrides=overrides).data, (2,), 1, HORIZON)
    assert isinstance(replay, PrioritizedReplay)
    assert (replay.alpha, replay.beta, replay.new, replay.capacity) == (0.6, 0.4, "one", 100)


def test_priorities_outlive_a_checkpoint() -> None:
    replay, again = prioritized(30), prioritized(30)
    add_episode(replay, "a", 9)
    replay.set_priorities(torch.arange(3), torch.tensor([3.0, 5.0, 0.5]))
    add_episode(again, "old", 20)
    copy_into(replay, again)
    np.testing.assert_array_equal(again.priorities, replay.priorities)
    assert again.largest == 5.0
    rngs = np.random.default_rng(1), np.random.default_rng(1)
    np.testing.assert_array_equal(replay.sample(32, rngs[0]).start, again.sample(32, rngs[1]).start)
    uniform = SequenceReplay(30, (2,), 1, HORIZON)
    add_episode(uniform, "a", 9)
    copy_into(uniform, again)
    np.testing.assert_array_equal(again.priorities, uniform.valid[: len(uniform)])


def random_batch(size: int, weight: torch.Tensor | None = None) -> Batch:
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(HORIZON + 1, size, 5, generator=generator)
    action = torch.rand(HORIZON, size, 2, generator=generator) * 2 - 1
    reward = torch.randn(HORIZON, size, 1, generator=generator)
    terminated = (torch.rand(HORIZON, size, 1, generator=generator) < 0.3).float()
    return Batch(obs, action, reward, terminated, weight=weight)


def loss_of(model: WorldModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
    target = batch.reward * 2
    with torch.no_grad():
        next_z = model.encode(batch.obs[1:])
    loss = world_model_loss(model, batch, next_z, target, UpdateConfig())
    return loss.total, loss.td_error


def test_importance_weights_are_those_of_the_sequences_in_the_loss() -> None:
    torch.manual_seed(0)
    cfg = MODEL_SIZES["tiny"].__class__(**{**vars(MODEL_SIZES["tiny"]), "episodic": True})
    model = WorldModel((5,), 2, cfg).eval()
    batch = random_batch(4)
    plain, none = loss_of(model, batch)
    assert none is None
    ones, error = loss_of(model, batch._replace(weight=torch.ones(4)))
    torch.testing.assert_close(ones, plain)
    assert error is not None
    weighted, _ = loss_of(model, batch._replace(weight=torch.tensor([2.0, 0.0, 2.0, 0.0])))
    half, half_error = loss_of(
        model,
        Batch(*(x[:, ::2] for x in batch[:4]), weight=torch.ones(2)),  # type: ignore[union-attr]
    )
    torch.testing.assert_close(weighted, half)
    torch.testing.assert_close(half_error, error[::2])
    with torch.no_grad():
        z, expected = model.encode(batch.obs[0]), torch.zeros(4)
        rho = 0.5 ** torch.arange(HORIZON)
        for t in range(HORIZON):
            value = model.scalar(model.q_logits(z, batch.action[t])).mean(0)
            expected += rho[t] / rho.sum() * (value - 2 * batch.reward[t]).abs().squeeze(-1)
            z = model.next(z, batch.action[t])
    torch.testing.assert_close(error, expected)


def test_an_update_tells_its_td_errors_where_the_batch_has_weights() -> None:
    torch.manual_seed(0)
    model = WorldModel((5,), 2, MODEL_SIZES["tiny"])
    updater = Updater(model, UpdateConfig(batch_size=4), 0.99)
    noise = UpdateNoise.sample(model, HORIZON, 4, torch.Generator().manual_seed(0))
    assert "td_error" not in updater.step(random_batch(4), noise)
    assert updater.td_error is None
    metrics = updater.step(random_batch(4, torch.ones(4)), noise)
    assert updater.td_error is not None
    assert updater.td_error.shape == (4,)
    assert metrics["td_error"] == updater.td_error.mean()
