"""The spaces of every task, and the way from [-1, 1] to an environment's own actions."""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float32]

# DMControl writes ±1e10 for an actuator without a control range.
UNBOUNDED = 1e9


def action_box(size: int, seed: int | None) -> Box:
    """Return the action space (size,) in [-1, 1], its sampler seeded."""
    box = Box(-1.0, 1.0, (size,), np.float32)
    box.seed(seed)
    return box


def observation_box(size: int) -> Box:
    """Return the observation space (size,); unbounded, as simulators leave the bounds that they declare."""
    return Box(-np.inf, np.inf, (size,), np.float32)


class ActionScale:
    """Map [-1, 1] onto a simulator's own range; dimensions without a range pass unchanged."""

    def __init__(self, low: ArrayLike, high: ArrayLike) -> None:
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        bounded = (np.abs(low) < UNBOUNDED) & (np.abs(high) < UNBOUNDED)
        self.low = np.where(bounded, low, -1.0)
        self.half_range = np.where(bounded, high - low, 2.0) / 2

    def __call__(self, action: ArrayLike) -> NDArray[np.float64]:
        """Scale an action (A,) in [-1, 1] to simulator units (A,)."""
        return self.low + self.half_range * (np.asarray(action, np.float64) + 1.0)
