"""The spaces of every task, and the way from [-1, 1] to an environment's own actions."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np
from gymnasium.spaces import Box, Dict, Space
from numpy.typing import ArrayLike, NDArray

from tdmpc_ray.observations import parts_of

FloatArray = NDArray[np.float32]
S = TypeVar("S", bound=Space)

# DMControl writes ±1e10 for an actuator without a control range.
UNBOUNDED = 1e9


def action_box(size: int, seed: int | None, scale: ActionScale | None = None) -> Box:
    """Return the action space (size,) in [-1, 1], its sampler seeded.

    Args:
        size: A.
        seed: of the sampler.
        scale: to the environment's own actions; None: they are the same.
    """
    box = Box(-1.0, 1.0, (size,), np.float32)
    box.seed(seed)
    low, high = (np.full(size, -1.0), np.ones(size)) if scale is None else (scale.low, scale.high)
    return with_meaning(box, {"low": low.tolist(), "high": high.tolist()})


def with_meaning(space: S, meaning: dict[str, Any]) -> S:
    """Note on a space what it stands for in the environment, of JSON's types.

    An attribute goes wherever the space goes, through vector environments, processes and checkpoints.
    """
    space.meaning = meaning  # type: ignore[attr-defined]
    return space


def zeros(space: Any) -> Any:
    """An observation of zeros, of a Box or of a Dict of them."""
    if isinstance(space, Dict):
        return {name: zeros(part) for name, part in space.spaces.items()}
    return np.zeros(space.shape or (), space.dtype)


def meaning_of(space: Any) -> dict[str, Any]:
    """What `with_meaning` noted; empty where nothing is known."""
    return getattr(space, "meaning", {})


def observation_box(size: int) -> Box:
    """Return the observation space (size,); unbounded, as simulators leave the bounds that they declare."""
    return Box(-np.inf, np.inf, (size,), np.float32)


class Shapes(NamedTuple):
    """What a world model has to know of an environment."""

    obs_shape: tuple[int, ...]  # (O,), or (C, 64, 64)
    action_dim: int
    vector_dim: int = 0  # of what is observed beside images

    @classmethod
    def of(cls, observations: Any, actions: Any) -> Shapes:
        """Of the spaces of an environment that `make_env` or `adapt` gave."""
        seen, beside = parts_of(observations)
        return cls(seen.shape, actions.shape[0], 0 if beside is None else beside.shape[0])


class ActionScale:
    """Map [-1, 1] onto a simulator's own range; dimensions without a range pass unchanged."""

    def __init__(self, low: ArrayLike, high: ArrayLike) -> None:
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        bounded = (np.abs(low) < UNBOUNDED) & (np.abs(high) < UNBOUNDED)
        self.low = np.where(bounded, low, -1.0)
        self.high = np.where(bounded, high, 1.0)
        self.half_range = (self.high - self.low) / 2

    def __call__(self, action: ArrayLike) -> NDArray[np.float64]:
        """Scale an action (A,) in [-1, 1] to simulator units (A,)."""
        return self.low + self.half_range * (np.asarray(action, np.float64) + 1.0)

    def inverse(self, control: ArrayLike) -> NDArray[np.float64]:
        """Actions in [-1, 1] that give these in simulator units, (..., A)."""
        away = np.asarray(control, np.float64) - self.low
        return away / np.where(self.half_range > 0, self.half_range, 1.0) - (self.half_range > 0)
