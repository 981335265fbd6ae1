"""The rows of a replay, and the memory that they take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tdmpc_ray.core.config import DataConfig
from tdmpc_ray.core.replay.chunks import pack_chunk, pack_state, unpack_chunk, unpack_state
from tdmpc_ray.core.replay.prioritized import make_replay
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.core.replay.size import gigabytes, row_bytes, rows_needed
from tdmpc_ray.errors import UserError

HORIZON = 3


@pytest.mark.parametrize("alpha", [0.0, 0.6])
@pytest.mark.parametrize(("obs_shape", "num_frames"), [((17,), 1), ((9, 8, 8), 3)])
@pytest.mark.parametrize("num_tasks", [0, 4])
def test_a_row_takes_what_is_said(
    alpha: float, obs_shape: tuple[int, ...], num_frames: int, num_tasks: int
) -> None:
    shape = (obs_shape, 6, HORIZON, num_frames, num_tasks)
    replay = make_replay(DataConfig(capacity=50_000, priority_alpha=alpha), *shape)
    arrays = [value for value in vars(replay).values() if isinstance(value, np.ndarray)]
    arrays += replay._tree._levels if alpha else []
    said = 50_000 * row_bytes(obs_shape, 6, num_frames, num_tasks, alpha > 0)
    assert sum(array.nbytes for array in arrays) == pytest.approx(said, rel=0.02)


@pytest.mark.parametrize("length", [1, 7, 20])
@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_a_run_fills_no_more_rows(length: int, is_known: bool, num_envs: int) -> None:
    """Fragments of environments in turn, until all steps are taken, which the last step may exceed."""
    total, fragment = 100, 5
    rows = rows_needed(
        1000,
        total,
        horizon=HORIZON,
        num_envs=num_envs,
        fragment=fragment,
        episode_length=length if is_known else None,
    )
    replay = SequenceReplay(1000, (2,), 1, HORIZON, rows=rows)
    assert replay.capacity == rows <= 2 * total + num_envs * (HORIZON + 1)
    played = [0] * num_envs
    while sum(played) < total:
        for env in range(num_envs):
            episode, start = divmod(played[env], length)
            steps = min(fragment, length - start, total - sum(played))
            if steps <= 0:
                continue
            played[env] += steps
            obs, done = np.zeros((steps + 1, 2), np.float32), start + steps == length
            action, reward = np.zeros((steps, 1), np.float32), np.zeros(steps, np.float32)
            replay.add(f"{env}/{episode}", start, obs, action, reward, terminated=False, done=done)
    assert replay.transitions_added == total
    assert replay.rows_written <= rows


def test_never_more_than_the_capacity_and_never_too_few_for_a_fragment() -> None:
    how: dict[str, Any] = {"horizon": 3, "num_envs": 2, "fragment": 25, "episode_length": 500}
    assert rows_needed(1000, None, **how) == rows_needed(1000, 10**6, **how) == 1000
    replay = SequenceReplay(1000, (1,), 1, 3, rows=rows_needed(1000, 5, **how))
    replay.add("a", 0, np.zeros((26, 1)), np.zeros((25, 1)), np.zeros(25), terminated=False, done=False)
    assert replay.num_valid > 0


def test_a_checkpoint_of_another_number_of_rows_is_taken_over_unless_it_began_anew() -> None:
    """As of a run that goes on for longer, or of one before rows were saved."""

    def filled(rows: int, steps: int) -> SequenceReplay:
        replay = SequenceReplay(1000, (1,), 1, HORIZON, rows=rows)
        for start in range(0, steps, 10):
            obs = np.arange(start, start + 11, dtype=np.float32)[:, None]
            replay.add("a", start, obs, obs[1:], obs[1:, 0], terminated=False, done=False)
        return replay

    def load(one: SequenceReplay, other: SequenceReplay) -> None:
        unpack_chunk(other, 0, pack_chunk(one, 0))
        unpack_state(other, pack_state(one, {}))

    one, larger = filled(60, 50), filled(100, 0)
    load(one, larger)
    np.testing.assert_array_equal(larger.obs[:51], one.obs[:51])
    assert larger.num_valid == one.num_valid == 48
    for rows, steps, others in ((60, 80, 100), (100, 80, 60)):
        with pytest.raises(UserError, match=r"this run's has [16]\d+: start it with the total_steps"):
            load(filled(rows, steps), filled(others, 0))


@pytest.mark.parametrize(("size", "said"), [(2.4e6, "2 MB"), (1.24e9, "1.2 GB"), (8e12, "8,000 GB")])
def test_sizes_in_words(size: float, said: str) -> None:
    assert gigabytes(size) == said
