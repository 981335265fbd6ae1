"""SequenceReplay against a plain list of episodes, over random interleavings of fragments."""

import numpy as np
import pytest
from replay_parts import HORIZON
from replays import copy_into

from tdmpc_ray.core.replay.chunks import pack_chunk
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.errors import UserError


class Writer:
    """Feeds episodes whose every number says where it belongs: obs = (episode, step)."""

    def __init__(self, replay: SequenceReplay, rng: np.random.Generator) -> None:
        self.replay, self.rng = replay, rng
        self.episodes = 0
        self.open: dict[int, tuple[int, int]] = {}  # lane -> (episode, step)

    def fragment(self, lane: int, length: int, *, done: bool, terminated: bool = False) -> None:
        episode, step = self.open.pop(lane, (self.episodes, 0))
        self.episodes = max(self.episodes, episode + 1)
        steps = np.arange(step, step + length + 1)
        obs = np.stack([np.full(length + 1, episode), steps], -1).astype(np.float32)
        self.replay.add(
            f"e{episode}",
            step,
            obs,
            action=steps[:-1, None].astype(np.float32) + 0.25,
            reward=steps[:-1].astype(np.float32) + 0.5,
            terminated=terminated,
            done=done,
        )
        if not done:
            self.open[lane] = (episode, step + length)

    def random(self, num: int) -> None:
        for _ in range(num):
            done = self.rng.random() < 0.2
            self.fragment(
                int(self.rng.integers(4)),
                int(self.rng.integers(1, 9)),
                done=done,
                terminated=done and self.rng.random() < 0.5,
            )


def chains(replay: SequenceReplay) -> list[tuple[int, int]]:
    """Every valid start as (episode, step), after checking that its sequence is one episode's, in order."""
    found = []
    for row in np.flatnonzero(replay.valid[: len(replay)]):
        episode, step = replay.obs[row]
        for k in range(HORIZON):
            assert replay.action[row, 0] == step + k + 0.25
            assert replay.reward[row] == step + k + 0.5
            row = replay.next_row[row]
            assert tuple(replay.obs[row]) == (episode, step + k + 1)
        found.append((int(episode), int(step)))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_every_start_with_enough_followers_is_valid_exactly_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    replay = SequenceReplay(5000, (2,), 1, HORIZON)
    writer = Writer(replay, rng)
    writer.random(300)
    lengths: dict[int, int] = {}
    for episode, step in replay.obs[: len(replay)]:
        lengths[int(episode)] = max(lengths.get(int(episode), 0), int(step))
    expected = sorted((e, s) for e, n in lengths.items() for s in range(n - HORIZON + 1))
    assert sorted(chains(replay)) == expected
    assert replay.num_valid == len(expected)
    assert replay.transitions_added == sum(lengths.values())


@pytest.mark.parametrize("seed", range(5))
def test_ring_overwrites_oldest_and_never_splices(seed: int) -> None:
    replay = SequenceReplay(60, (2,), 1, HORIZON)
    writer = Writer(replay, np.random.default_rng(seed))
    for _ in range(100):
        writer.random(3)
        starts = chains(replay)
        assert len(set(starts)) == len(starts) == replay.num_valid
        assert len(starts) > 5 or len(replay) < 60
    assert len(replay) == 60


def test_lane_whose_end_was_overwritten_starts_anew() -> None:
    replay = SequenceReplay(40, (2,), 1, HORIZON)
    writer = Writer(replay, np.random.default_rng(0))
    writer.fragment(0, 5, done=False)
    for _ in range(10):
        writer.fragment(1, 6, done=True)
    writer.fragment(0, 5, done=True)
    assert [s for s in sorted(chains(replay)) if s[0] == 0] == [(0, 5), (0, 6), (0, 7)]


def test_lost_fragment_leaves_a_gap_that_no_sample_crosses() -> None:
    replay = SequenceReplay(100, (2,), 1, HORIZON)
    writer = Writer(replay, np.random.default_rng(0))
    writer.fragment(0, 5, done=False)
    episode, step = writer.open[0]
    writer.open[0] = (episode, step + 4)  # steps 5..8 never arrive
    writer.fragment(0, 5, done=True)
    assert sorted(s for _, s in chains(replay)) == [0, 1, 2, 9, 10, 11]


def test_samples_are_uniform_over_starts_and_time_major() -> None:
    replay = SequenceReplay(100, (2,), 1, HORIZON)
    writer = Writer(replay, np.random.default_rng(0))
    for length in (3, 4, 10, 23):
        writer.fragment(0, length, done=True, terminated=length == 10)
    rng = np.random.default_rng(1)
    rows = replay.sample_rows(50_000, rng)[0]
    counts = np.bincount(rows, minlength=len(replay))[replay.valid[: len(replay)]]
    assert len(counts) == 1 + 2 + 8 + 21
    expected = 50_000 / len(counts)
    assert abs(counts - expected).max() < 5 * np.sqrt(expected)

    batch = replay.sample(64, rng)
    assert batch.obs.shape == (4, 64, 2)
    assert batch.action.shape == batch.reward.shape == batch.terminated.shape == (3, 64, 1)
    assert (batch.obs[1:, :, 1] == batch.obs[:-1, :, 1] + 1).all()
    assert (batch.reward[..., 0] == batch.obs[:-1, :, 1] + 0.5).all()
    ended = (batch.obs[1:, :, 0] == 2) & (batch.obs[1:, :, 1] == 10)
    assert (batch.terminated[..., 0].bool() == ended).all()
    assert ended.any()


def test_sparse_starts_are_found() -> None:
    replay = SequenceReplay(1000, (2,), 1, HORIZON)
    writer = Writer(replay, np.random.default_rng(0))
    for _ in range(200):
        writer.fragment(0, 2, done=True)
    with pytest.raises(UserError, match=r"no episode .* planner\.horizon=3"):
        replay.sample(8, np.random.default_rng(0))
    writer.fragment(0, 4, done=True)
    assert set(replay.sample_rows(64, np.random.default_rng(0))[0].tolist()) == {600, 601}


def in_small_chunks(replay: SequenceReplay, rows: int = 32) -> SequenceReplay:
    replay.chunk_rows, replay.changed = rows, np.zeros(-(-replay.capacity // rows), np.bool_)
    return replay


def test_save_and_load_continue_bitwise() -> None:
    replay = in_small_chunks(SequenceReplay(200, (2,), 1, HORIZON))
    writer = Writer(replay, np.random.default_rng(0))
    writer.random(80)
    copy = copy_into(replay, SequenceReplay(200, (2,), 1, HORIZON))
    other = Writer(copy, np.random.default_rng(7))
    other.open, other.episodes = dict(writer.open), writer.episodes
    writer.rng = np.random.default_rng(7)
    writer.random(20)
    other.random(20)
    assert chains(copy) == chains(replay)
    ours, theirs = (r.sample(32, np.random.default_rng(3)) for r in (copy, replay))
    assert all((a == b).all() for a, b in zip(ours[:4], theirs[:4], strict=True))


@pytest.mark.parametrize("rows", [4, 80])
def test_loading_into_a_filled_replay_leaves_nothing_of_it(rows: int) -> None:
    saved = SequenceReplay(300, (2,), 1, HORIZON)
    Writer(saved, np.random.default_rng(0)).fragment(0, rows - 1, done=True)
    replay = SequenceReplay(300, (2,), 1, HORIZON)
    Writer(replay, np.random.default_rng(1)).random(100)
    copy_into(saved, replay)
    writer = Writer(replay, np.random.default_rng(2))
    writer.episodes = 1
    for _ in range(40):
        assert len(chains(replay)) == replay.num_valid > 0
        writer.random(1)


@pytest.mark.parametrize("frames", [1, 3])
def test_chunks_that_are_not_marked_have_not_changed(frames: int) -> None:
    """What a checkpoint writes again is enough, and little: the ends of open episodes and the new rows."""
    rng, shape = np.random.default_rng(0), (2,) if frames == 1 else (3, 2, 2)
    replay = in_small_chunks(SequenceReplay(300, shape, 1, HORIZON, num_frames=frames))
    written: dict[int, bytes] = {}
    marked = 0
    for round_ in range(120):
        episode, steps = int(rng.integers(4)), int(rng.integers(1, 12))
        episode += 4 * (round_ // 30)  # the older ones stay open, and grow no more
        lane = replay.lanes.get(str(episode))
        start = lane.step if lane else 0
        obs = rng.integers(0, 255, (steps + 1, *shape)).astype(np.uint8 if frames > 1 else np.float32)
        replay.add(
            str(episode), start, obs, np.ones((steps, 1)), np.ones(steps), terminated=False, done=steps > 10
        )
        num_chunks = -(-len(replay) // replay.chunk_rows)
        for index in range(num_chunks):
            packed = pack_chunk(replay, index)
            if replay.changed[index]:
                written[index] = packed
                marked += 1
            assert written[index] == packed
        assert not replay.changed[num_chunks:].any()
        replay.changed[:] = False
    assert marked < 3 * 120


@pytest.mark.parametrize("bad", [np.nan, 1e39])  # the latter as it is kept, in float32
@pytest.mark.parametrize("part", ["observation", "action", "reward"])
def test_numbers_that_are_not_finite_are_named(part: str, bad: float) -> None:
    replay = SequenceReplay(50, (2,), 1, HORIZON)
    arrays = {"observation": np.zeros((6, 2)), "action": np.zeros((5, 1)), "reward": np.zeros(5)}
    arrays[part][2] = bad
    with pytest.raises(UserError, match=f"the {part} at step 12 of an episode is not finite"):
        replay.add("e", 10, *arrays.values(), terminated=False, done=False)
    assert len(replay) == 0


def test_replays_of_another_shape_are_refused() -> None:
    saved = SequenceReplay(50, (2,), 1, HORIZON)
    Writer(saved, np.random.default_rng(0)).fragment(0, 9, done=True)
    for other in (SequenceReplay(60, (2,), 1, HORIZON), SequenceReplay(50, (2,), 1, HORIZON + 1)):
        with pytest.raises(
            UserError, match=r"\(data\.capacity, planner\.horizon\) \(50, 3\), this run's has"
        ):
            copy_into(saved, other)
    with pytest.raises(UserError, match=r"has obs of float32 \(2,\), this run's has float32 \(3,\)"):
        copy_into(saved, SequenceReplay(50, (3,), 1, HORIZON))
    with pytest.raises(UserError, match=r"has task of int16"):
        copy_into(saved, SequenceReplay(50, (2,), 1, HORIZON, num_tasks=2))
