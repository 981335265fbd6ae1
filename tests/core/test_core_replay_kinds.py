"""Replays of stacked frames and of several tasks, and what they take."""

import numpy as np
import pytest
import torch
from replay_parts import HORIZON
from replays import copy_into

from tdmpc_ray.core.replay.chunks import pack_chunk, unpack_arrays, unpack_chunk
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.errors import UserError


def stack(episode: int, step: int, frames: int = 3) -> np.ndarray:
    """Frames `step - 2 .. step` of an episode, its first one repeated before the start; (3 * 2, 4, 4)."""
    steps = [max(step - back, 0) for back in reversed(range(frames))]
    return np.repeat(np.array([(episode * 37 + s) % 251 for s in steps], np.uint8), 2 * 16).reshape(-1, 4, 4)


def test_stacked_frames_are_kept_once_and_given_back_as_stacks() -> None:
    """Interleaved episodes in a small ring, some fragments lost: every sampled stack is that of its step."""
    rng, capacity = np.random.default_rng(0), 97
    replay = SequenceReplay(capacity, (6, 4, 4), 1, HORIZON, num_frames=3)
    assert replay.obs.shape == (capacity, 2, 4, 4)
    assert replay.obs.dtype == np.uint8
    open_at, next_episode = {0: 0, 1: 0, 2: 0}, 3
    for _ in range(400):
        episode = int(rng.choice(list(open_at)))
        start, steps = open_at[episode], int(rng.integers(1, 8))
        done = bool(rng.random() < 0.15)
        obs = np.stack([stack(episode, start + t) for t in range(steps + 1)])
        if rng.random() > 0.1:  # else the fragment is lost on its way
            told = np.array([[episode * 1000 + start + t] for t in range(steps)], np.float32)
            replay.add(
                str(episode), start, obs, told, np.zeros(steps, np.float32), terminated=False, done=done
            )
        open_at[episode] = start + steps
        if done:
            del open_at[episode]
            open_at[next_episode] = 0
            next_episode += 1
        assert replay.num_valid == np.count_nonzero(replay.valid)
        if replay.num_valid:
            drawn = replay.sample(16, rng)
            assert drawn.obs.shape == (HORIZON + 3, 16, 2, 4, 4)  # what crosses the bus
            batch = drawn.to("cpu")
            for b in range(16):
                for t in range(HORIZON + 1):
                    who = int(batch.action[0, b, 0]) + t
                    expected = stack(who // 1000, who % 1000)
                    np.testing.assert_array_equal(batch.obs[t, b].numpy(), expected)
                    assert t == HORIZON or who == int(batch.action[t, b, 0])
    assert replay.num_valid > capacity / 3


def test_memory_is_that_of_the_data() -> None:
    replay = SequenceReplay(1_000_000, (24,), 6, 3)  # walker
    kept = sum(array.nbytes for array in vars(replay).values() if isinstance(array, np.ndarray))
    raw = 1_000_000 * (4 * (24 + 6 + 1) + 1)
    assert raw < kept < 1.1 * raw
    pixels = SequenceReplay(10_000, (9, 64, 64), 6, 3, num_frames=3)
    kept = sum(array.nbytes for array in vars(pixels).values() if isinstance(array, np.ndarray))
    assert kept < 1.01 * 10_000 * (3 * 64 * 64 + 4 * 7 + 1)


def test_sequences_know_their_task() -> None:
    rng, replay = np.random.default_rng(0), SequenceReplay(60, (1,), 1, HORIZON, num_tasks=4)
    for episode in range(12):
        task, steps = episode % 4, 5 + episode
        obs = np.full((steps + 1, 1), task, np.float32)
        replay.add(
            str(episode),
            0,
            obs,
            np.zeros((steps, 1)),
            np.zeros(steps),
            terminated=False,
            done=True,
            task=task,
        )
    again = copy_into(replay, SequenceReplay(60, (1,), 1, HORIZON, num_tasks=4))
    for one in (replay, again):
        batch = one.sample(64, rng)
        assert batch.task is not None
        assert batch.task.dtype == torch.int64
        assert torch.equal(batch.obs[:, :, 0], batch.task.float().expand(HORIZON + 1, -1))
        assert len(batch.task.unique()) == 4
    assert SequenceReplay(60, (1,), 1, HORIZON).task.nbytes == 0


def test_what_an_agent_keeps_with_steps_travels_with_them() -> None:
    """Also through checkpoints; and it can be replaced, which the next checkpoint writes."""
    rng = np.random.default_rng(0)
    replay = SequenceReplay(60, (2,), 1, HORIZON, extra_dim=2)
    for episode in range(12):
        at = 100 * episode + np.arange(8, dtype=np.float32)
        extra = np.stack([at[:-1], -at[:-1]], 1)
        obs, steps = np.repeat(at[:, None], 2, 1), np.zeros((7, 1), np.float32)
        replay.add(str(episode), 0, obs, steps, at[:-1], terminated=False, done=True, extra=extra)
    batch = replay.sample(64, rng)
    assert batch.extra is not None
    np.testing.assert_array_equal(batch.extra[..., 0], batch.reward[..., 0])
    np.testing.assert_array_equal(batch.extra[..., 1], -batch.reward[..., 0])

    replay.changed[:] = False
    rows = replay.sample_rows(4, rng)[:-1]
    replay.set_extra(rows, np.full((*rows.shape, 2), 7.0, np.float32))
    assert (replay.extra[rows] == 7).all()
    assert replay.changed.any()
    other = SequenceReplay(60, (2,), 1, HORIZON, extra_dim=2)
    copy_into(replay, other)
    np.testing.assert_array_equal(other.extra, replay.extra)

    without = SequenceReplay(60, (2,), 1, HORIZON)
    without.add("a", 0, np.zeros((8, 2)), np.zeros((7, 1)), np.zeros(7), terminated=False, done=True)
    assert without.sample(4, rng).extra is None
    assert "extra" not in unpack_arrays(pack_chunk(without, 0)), "it costs those nothing who do not ask"
    with pytest.raises(UserError, match=r"replay has extra of float32 \(0,\), this run's has float32 \(2,\)"):
        unpack_chunk(other, 0, pack_chunk(without, 0))
