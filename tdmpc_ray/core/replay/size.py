"""How large a replay has to be, and what that takes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tdmpc_ray.errors import UserError


def rows_needed(
    capacity: int,
    total_steps: int | None,
    *,
    horizon: int,
    num_envs: int,
    fragment: int,
    episode_length: int | None,
) -> int:
    """Rows that a run can ever fill.

    Args:
        capacity: there are never more.
        total_steps: of the run, of all environments together; None: no end is known.
        horizon: H, of which each environment gets some to spare.
        num_envs: that play at once.
        fragment: steps of the longest piece of an episode that is added at once.
        episode_length: of the shortest episode but the last of each environment; None: a single step.
    """
    if total_steps is None:
        return capacity
    # An episode of T transitions takes T + 1 rows.
    episodes = total_steps if episode_length is None else -(-total_steps // episode_length) + num_envs
    return min(capacity, max(total_steps + episodes + num_envs * horizon, fragment + horizon + 2))


def row_bytes(
    obs_shape: Sequence[int],
    action_dim: int,
    num_frames: int = 1,
    num_tasks: int = 0,
    is_prioritized: bool = False,
    vector_dim: int = 0,
    extra_dim: int = 0,
) -> int:
    """Memory of one row; the arguments as for `SequenceReplay`."""
    obs = 4 * obs_shape[0] if len(obs_shape) == 1 else math.prod(obs_shape) // num_frames
    links = 4 + 5 * (num_frames > 1)  # to the next row, to the one before, whether that is gone
    # Reward, terminated, valid; the sum tree has a 32nd more on each level.
    return (
        obs + 4 * (vector_dim + action_dim + extra_dim) + links + 6 + 2 * bool(num_tasks) + 9 * is_prioritized
    )


def no_memory(needed: float, here: float) -> UserError:
    """The error where a replay needs more bytes than a machine has."""
    return UserError(
        f"the replay takes {gigabytes(needed)} and this machine has {gigabytes(here)} of memory: "
        "lower data.capacity, or train fewer steps"
    )


def gigabytes(num_bytes: float) -> str:
    """`12 MB`, `1.2 GB`, `120 GB`."""
    if num_bytes < 1e9:
        return f"{num_bytes / 1e6:.0f} MB"
    return f"{num_bytes / 1e9:,.{1 if num_bytes < 1e10 else 0}f} GB"
