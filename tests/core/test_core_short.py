"""Episodes shorter than the horizon, and the ends of all others: every transition is learned from."""

import numpy as np
import pytest
import torch
from replay_parts import HORIZON
from replays import copy_into
from test_core_reference import ACTION, BATCH, OBS, trained
from test_core_replay import Writer, in_small_chunks
from test_core_replay_kinds import stack

from tdmpc_ray.core.agents.tdmpc2.functions import plan
from tdmpc_ray.core.agents.tdmpc2.losses import world_model_loss
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import DataConfig, agent_config
from tdmpc_ray.core.planners import PlanNoise
from tdmpc_ray.core.replay.chunks import forget_rows
from tdmpc_ray.core.replay.prioritized import PrioritizedReplay
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.datasets.demonstrations import load_demonstrations
from tdmpc_ray.datasets.episode import EpisodeRecord
from tdmpc_ray.errors import UserError


def check_batch(batch: Batch) -> None:
    """Of a `Writer`: what happened comes first and in order; behind it the last observation is repeated."""
    assert batch.mask is not None
    real = batch.mask[..., 0].bool()
    assert real[0].all()
    assert (real[:-1] | ~real[1:]).all()
    obs = batch.obs
    assert (obs[1:, :, 0] == obs[:-1, :, 0]).all()
    assert (obs[1:, :, 1] == obs[:-1, :, 1] + real).all()
    assert (batch.action[..., 0][real] == obs[:-1, :, 1][real] + 0.25).all()
    assert (batch.reward[..., 0][real] == obs[:-1, :, 1][real] + 0.5).all()
    for padding in (batch.action, batch.reward, batch.terminated):
        assert not padding[~real].any()


@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize("capacity", [61, 2000])
def test_every_transition_starts_a_sequence_of_its_own_episode(capacity: int, prioritized: bool) -> None:
    """Episodes of 1 to 6 steps in fragments of 1 to 3 that interleave; some fragments are lost."""
    rng = np.random.default_rng(capacity)
    how = {"alpha": 0.6, "beta": 0.4, "new": "max"} if prioritized else {}
    kind = PrioritizedReplay if prioritized else SequenceReplay
    replay = kind(capacity, (2,), 1, HORIZON, allow_short=True, **how)
    writer = Writer(replay, rng)
    for _ in range(300):
        lane, done = int(rng.integers(3)), bool(rng.random() < 0.5)
        if lane in writer.open and rng.random() < 0.1:
            episode, step = writer.open[lane]
            writer.open[lane] = (episode, step + 2)
        terminated = done and bool(rng.random() < 0.5)
        writer.fragment(lane, int(rng.integers(1, 4)), done=done, terminated=terminated)
        has_follower = replay.next_row[: len(replay)] >= 0
        np.testing.assert_array_equal(replay.valid[: len(replay)], has_follower)
        assert replay.num_valid == has_follower.sum()
        check_batch(batch := replay.sample(16, rng))
        if isinstance(replay, PrioritizedReplay):
            np.testing.assert_array_equal(replay.priorities > 0, has_follower)
            replay.set_priorities(batch.start, torch.rand(16))
    if not prioritized:
        drawn = np.concatenate([replay.sample_rows(1000, rng)[0] for _ in range(40)])
        np.testing.assert_array_equal(np.unique(drawn), np.flatnonzero(has_follower))
    assert replay.left_out == 0


def test_short_sequences_of_stacked_frames() -> None:
    rng, replay = np.random.default_rng(0), SequenceReplay(67, (6, 4, 4), 1, HORIZON, 3, allow_short=True)
    for episode in range(150):
        start, steps = 0, int(rng.integers(1, 5))
        if episode % 3 == 0:  # its first stack holds older frames
            start = 4
        obs = np.stack([stack(episode, start + t) for t in range(steps + 1)])
        told = np.array([[episode * 1000 + start + t] for t in range(steps)], np.float32)
        replay.add(str(episode), start, obs, told, np.zeros(steps), terminated=True, done=True)
        batch = replay.sample(16, rng).to("cpu")
        assert batch.mask is not None
        for b in range(16):
            first, real = int(batch.action[0, b, 0]), int(batch.mask[:, b].sum())
            for t in range(HORIZON + 1):
                expected = stack(first // 1000, first % 1000 + min(t, real))
                np.testing.assert_array_equal(batch.obs[t, b].numpy(), expected)
            assert batch.terminated[:, b, 0].tolist() == [float(t == real - 1) for t in range(HORIZON)] or (
                real == HORIZON
            )


def test_what_whole_sequences_leave_out_is_counted() -> None:
    replay = SequenceReplay(200, (2,), 1, HORIZON)
    writer = Writer(replay, np.random.default_rng(0))
    for steps, left_out in ((2, 2), (3, 2), (1, 3), (7, 3)):
        writer.fragment(0, steps, done=True)
        assert replay.left_out == left_out
    writer.fragment(0, 1, done=False)
    writer.fragment(0, 1, done=False)
    episode, step = writer.open[0]
    writer.open[0] = (episode, step + 5)  # lost
    assert replay.left_out == 3
    writer.fragment(0, 1, done=True)
    assert replay.left_out == 3 + 2 + 1
    assert copy_into(replay, SequenceReplay(200, (2,), 1, HORIZON)).left_out == 6


def test_checkpoints_with_and_without_short_sequences() -> None:
    """Of one that was written before there were such, the ends of episodes become starts, too."""
    old = SequenceReplay(200, (2,), 1, HORIZON)
    writer = Writer(old, np.random.default_rng(0))
    for steps in (9, 4, 12):
        writer.fragment(0, steps, done=True, terminated=True)
    replay = copy_into(old, SequenceReplay(200, (2,), 1, HORIZON, allow_short=True))
    np.testing.assert_array_equal(replay.valid[:200], replay.next_row >= 0)
    assert replay.num_valid == 25
    check_batch(replay.sample(64, np.random.default_rng(0)))
    again = copy_into(replay, SequenceReplay(200, (2,), 1, HORIZON, allow_short=True))
    ours, theirs = (r.sample(32, np.random.default_rng(3)) for r in (again, replay))
    assert all((a == b).all() for a, b in zip(ours[:4], theirs[:4], strict=True))
    with pytest.raises(UserError, match=r"episodic model, this run's is not: .* model\.episodic"):
        copy_into(replay, old)


def test_rows_that_are_given_up_are_in_no_sequence() -> None:
    replay = in_small_chunks(SequenceReplay(90, (2,), 1, HORIZON, allow_short=True), rows=10)
    writer, rng = Writer(replay, np.random.default_rng(0)), np.random.default_rng(1)
    writer.random(80)
    forget_rows(replay, 20, 10)
    assert not np.isin(replay.sample_rows(2000, rng), np.arange(20, 30)).any()
    for _ in range(40):
        check_batch(replay.sample(64, rng))
        writer.random(1)


def test_short_demonstrations(tmp_path: object) -> None:
    for number, steps in enumerate((1, 2)):
        record = EpisodeRecord(np.zeros(2, np.float32))
        for step in range(steps):
            record.add(np.full(2, step + 1, np.float32), np.array([0.5]), 1.0)
        record.save(tmp_path / f"{number}.npz", terminated=True, task="lab")  # type: ignore[operator]
    replay = load_demonstrations(DataConfig(demonstrations=str(tmp_path)), (2,), 1, HORIZON, allow_short=True)
    assert replay.num_valid == 3
    batch = replay.sample(4, np.random.default_rng(0))
    both = batch.followed_by(batch)
    assert both.mask is not None
    assert both.mask.shape == (HORIZON, 8, 1)


EPISODIC = {"model.episodic": True, "model.dropout": 0.0}


def batch_of(seed: int, lengths: list[int] | None = None, weighted: bool = False) -> Batch:
    """Random numbers; with `lengths`, so many steps of each sequence happened."""
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(HORIZON + 1, BATCH, OBS, generator=generator)
    action = torch.rand(HORIZON, BATCH, ACTION, generator=generator) * 2 - 1
    reward = torch.randn(HORIZON, BATCH, 1, generator=generator)
    terminated = (torch.rand(HORIZON, BATCH, 1, generator=generator) < 0.2).float()
    weight = torch.rand(BATCH, generator=generator) if weighted else None
    mask = None
    if lengths is not None:
        steps = torch.arange(HORIZON).unsqueeze(-1)
        mask = (steps < torch.tensor(lengths)).float().unsqueeze(-1)
    return Batch(obs, action, reward, terminated, weight=weight, mask=mask)


def updated(batches: list[Batch]) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]], Updater]:
    torch.manual_seed(0)
    model, agent = trained(**EPISODIC)
    updater, generator = Updater(model, agent.update, 0.97), torch.Generator().manual_seed(1)
    metrics = [updater.step(batch, UpdateNoise.sample(model, HORIZON, BATCH, generator)) for batch in batches]
    return model.state_dict(), metrics, updater


@pytest.mark.parametrize("weighted", [False, True])
def test_where_all_steps_happened_a_mask_changes_not_one_bit(weighted: bool) -> None:
    plain = [batch_of(seed, None, weighted) for seed in range(3)]
    masked = [batch_of(seed, [HORIZON] * BATCH, weighted) for seed in range(3)]
    (one, ours, updater), (two, theirs, other) = updated(plain), updated(masked)
    assert all(torch.equal(one[name], two[name]) for name in one)
    for a, b in zip(ours, theirs, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    if weighted:
        assert torch.equal(updater.td_error, other.td_error)


@pytest.mark.parametrize("weighted", [False, True])
def test_what_lies_behind_the_end_changes_nothing(weighted: bool) -> None:
    lengths = [1 + index % HORIZON for index in range(BATCH)]
    batch = batch_of(0, lengths, weighted)
    behind = 1 - batch.mask
    other = batch._replace(
        obs=batch.obs + 3 * torch.cat([torch.zeros(1, BATCH, 1), behind]),
        action=batch.action * batch.mask,
        reward=batch.reward + 100 * behind,
        terminated=torch.maximum(batch.terminated, behind),
    )
    (one, ours, updater), (two, theirs, another) = updated([batch]), updated([other])
    for name, value in ours[0].items():
        torch.testing.assert_close(theirs[0][name], value, rtol=1e-6, atol=1e-6, msg=name)
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-6, atol=1e-7, msg=name)
    if weighted:
        torch.testing.assert_close(another.td_error, updater.td_error)


def test_a_step_weighs_as_much_in_a_short_sequence() -> None:
    """The losses of sequences of one step are those of first steps alone."""
    torch.manual_seed(0)
    model, agent = trained(**EPISODIC)
    batch = batch_of(0, [1] * BATCH)
    target = 2 * batch.reward
    with torch.no_grad():
        next_z = model.encode(batch.obs[1:])
        short = world_model_loss(model, batch, next_z, target, agent.update)
        first = Batch(batch.obs[:2], *(x[:1] for x in batch[1:4]))  # type: ignore[index]
        alone = world_model_loss(model, first, next_z[:1], target[:1], agent.update)
    for name in ("consistency", "reward", "value", "termination"):
        torch.testing.assert_close(HORIZON * getattr(short, name), getattr(alone, name), msg=name)


def test_a_first_step_that_ends_the_episode_is_learned() -> None:
    """One sign of the first action ends an episode at once with -10, the other lasts 20 steps at +1."""
    overrides = {
        "model.episodic": True,
        "planner.num_samples": 64,
        "planner.num_elites": 8,
        "planner.num_pi_trajs": 4,
        "update.batch_size": 32,
    }
    agent = agent_config("tiny", overrides=overrides)
    replay, rng = SequenceReplay(2000, (3,), 2, HORIZON, allow_short=True), np.random.default_rng(0)
    for episode in range(90):
        action = rng.uniform(-1, 1, (20, 2)).astype(np.float32)
        dies = action[0, 0] > 0
        steps = 1 if dies else 20
        reward = np.full(steps, -10.0 if dies else 1.0, np.float32)
        obs = np.zeros((steps + 1, 3), np.float32)
        replay.add(str(episode), 0, obs, action[:steps], reward, terminated=dies, done=True)
    torch.manual_seed(0)
    model = WorldModel((3,), 2, agent.model)
    updater, generator = Updater(model, agent.update, 0.95), torch.Generator().manual_seed(0)
    for _ in range(150):
        updater.step(replay.sample(32, rng), UpdateNoise.sample(model, HORIZON, 32, generator))
    model.eval()
    noise = PlanNoise.sample(model, agent.planner, 20, generator)
    z = model.encode(torch.zeros(20, 3)).detach()
    first = plan(
        model, z, torch.zeros(20, HORIZON, 2), agent.planner, noise, discount=0.95, explore=False
    ).action
    assert (first[:, 0] < 0).all()


def test_the_share_beyond_the_bins_counts_what_happened() -> None:
    """The bins end at +-22,025."""
    lengths = [1 if index % 2 else HORIZON for index in range(BATCH)]
    batch = batch_of(0, lengths)
    batch.reward[:] = 100.0
    batch.reward[0, 0], batch.reward[0, 1], batch.reward[1, 1] = 1e6, -1e6, 1e6  # the last one never happened
    _, [metrics], _ = updated([batch])
    steps = sum(lengths)
    assert metrics["rewards_clipped"] == pytest.approx(2 / steps)
    assert metrics["targets_clipped"] == pytest.approx(2 / steps)
    _, [metrics], _ = updated([batch._replace(mask=None)])
    assert metrics["rewards_clipped"] == pytest.approx(3 / (HORIZON * BATCH))
