"""Gymnasium: any registered id with a Box action and a vector observation, no action repeat."""

from __future__ import annotations

import atexit
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Space
from numpy.typing import ArrayLike

from tdmpc_ray.envs.catalog import TaskInfo
from tdmpc_ray.envs.wrappers import ActionScale, FloatArray, action_box, observation_box, require_gl
from tdmpc_ray.errors import UserError


class GymAdapter(gymnasium.Wrapper, gymnasium.utils.RecordConstructorArgs):
    """Flat float32 observations and actions in [-1, 1] over any environment that passes `check_spaces`."""

    def __init__(self, env: gymnasium.Env, seed: int | None) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, seed=seed)
        gymnasium.Wrapper.__init__(self, env)
        inner, observed = env.action_space, env.observation_space
        assert isinstance(inner, Box)
        assert isinstance(observed, Box)
        self.action_space = action_box(inner.shape[0], seed)
        self.observation_space = observation_box(int(np.prod(observed.shape)))
        self._action_dtype: Any = inner.dtype
        self._scale = ActionScale(inner.low, inner.high)
        self._first_seed = seed

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Start an episode; the first one takes the seed of `make_env` where none is given."""
        seed = self._first_seed if seed is None else seed
        self._first_seed = None
        observation, info = self.env.reset(seed=seed, options=options)
        return _flat(observation), info

    def step(self, action: ArrayLike) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Apply an action (A,) in [-1, 1]."""
        control = self._scale(action).astype(self._action_dtype)
        observation, reward, terminated, truncated, info = self.env.step(control)
        return _flat(observation), float(reward), bool(terminated), bool(truncated), info

    def render(self) -> Any:
        """Return a frame (H, W, 3) uint8.

        Raises:
            UserError: a package that only rendering needs is missing.
        """
        try:
            return self.env.render()
        except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
            raise UserError(f"cannot render: {_one_line(error)}") from error


def make_gym(info: TaskInfo, seed: int | None, render_mode: str | None) -> gymnasium.Env:
    """Build a Gymnasium task.

    Raises:
        UserError: it cannot be built, or its spaces are not vectors.
    """
    try:
        env = gymnasium.make(
            info.simulator_id,
            render_mode=render_mode,
            max_episode_steps=info.episode_length,
            disable_env_checker=True,
        )
    # The environments' constructors raise what they like for a missing package or a retired version.
    except Exception as error:
        raise UserError(f"task '{info.name}' cannot be built: {_one_line(error)}") from error
    try:
        check_spaces(info.name, env)
        mujoco_renderer = getattr(env.unwrapped, "mujoco_renderer", None)
        if render_mode is not None and mujoco_renderer is not None:
            require_gl()
            atexit.register(mujoco_renderer.close)
    except UserError:
        env.close()
        raise
    return GymAdapter(env, seed)


def check_spaces(name: str, env: gymnasium.Env) -> None:
    """Refuse actions that are not a vector of bounded numbers, and observations that are not numbers.

    Raises:
        UserError: says which space is wrong.
    """
    action, observation = env.action_space, env.observation_space
    if not isinstance(action, Box) or len(action.shape) != 1 or not np.issubdtype(action.dtype, np.floating):
        raise UserError(
            f"task '{name}' has actions {_describe(action)}: choose one with a vector of continuous actions"
        )
    if not action.is_bounded():
        raise UserError(f"task '{name}' has unbounded actions: choose a task with finite action bounds")
    if not isinstance(observation, Box) or len(observation.shape) > 2 or observation.dtype == np.uint8:
        raise UserError(
            f"task '{name}' has observations {_describe(observation)}: choose a task that observes a vector"
        )


def _describe(space: Space) -> str:
    return f"Box{space.shape} of {space.dtype}" if isinstance(space, Box) else type(space).__name__


def _flat(observation: Any) -> FloatArray:
    return np.array(observation, np.float32).reshape(-1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
