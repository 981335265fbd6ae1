"""Gymnasium ids and registered tasks: any environment with a Box action and a vector observation."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Space
from numpy.typing import ArrayLike

from tdmpc_ray.envs.contract import Contract
from tdmpc_ray.envs.registered import RegisteredTask
from tdmpc_ray.envs.task import TaskInfo
from tdmpc_ray.envs.wrappers import (
    UNBOUNDED,
    ActionScale,
    FloatArray,
    action_box,
    observation_box,
    require_gl,
)
from tdmpc_ray.errors import UserError


class GymAdapter(gymnasium.Wrapper, gymnasium.utils.RecordConstructorArgs):
    """Flat float32 observations and actions in [-1, 1] over any environment that passes `check_spaces`.

    Args:
        env: to be adapted.
        task: its name, for errors.
        seed: of the first episode, where its reset gives none, and of `action_space.sample()`.
        limit: steps that an episode may last; None where a wrapper sees to it.
        metric: "success" where the last step has to say it.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        task: str,
        seed: int | None,
        limit: int | None = None,
        metric: str = "return",
    ) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, task=task, seed=seed, limit=limit, metric=metric)
        gymnasium.Wrapper.__init__(self, env)
        inner, observed = env.action_space, env.observation_space
        assert isinstance(inner, Box)
        assert isinstance(observed, Box)
        self.action_space = action_box(inner.shape[0], seed)
        self.observation_space = observation_box(int(np.prod(observed.shape)))
        self._action_dtype: Any = inner.dtype
        self._scale = ActionScale(inner.low, inner.high)
        self._first_seed = seed
        self._contract, self._metric = Contract(task, observed.shape, limit), metric

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Start an episode; the first one takes the seed of `make_env` where none is given."""
        seed = self._first_seed if seed is None else seed
        self._first_seed = None
        observation, info = self.env.reset(seed=seed, options=options)
        self._contract.reset(observation)
        return _flat(observation), info

    def step(self, action: ArrayLike) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Apply an action (A,) in [-1, 1]."""
        control = self._scale(action).astype(self._action_dtype)
        observation, reward, terminated, truncated, info = self.env.step(control)
        self._contract.step(observation, reward, terminated or truncated)
        if self._metric == "success" and (terminated or truncated):
            self._contract.last(info)
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
    """Build a Gymnasium task; longer than its time limit no episode lasts.

    Raises:
        UserError: it cannot be built, or its spaces are not vectors.
    """

    def build() -> gymnasium.Env:
        return gymnasium.make(
            info.simulator_id,
            render_mode=render_mode,
            max_episode_steps=info.episode_length,
            disable_env_checker=True,
        )

    return GymAdapter(_built(info.name, build, render_mode), info.name, seed)


def make_registered(task: RegisteredTask, seed: int | None, render_mode: str | None) -> gymnasium.Env:
    """Build a registered task, see `register_task`.

    Raises:
        UserError: as `make_gym`.
    """
    name = task.info.name
    env = _built(name, lambda: task.make(render_mode=render_mode), render_mode)
    return GymAdapter(env, name, seed, task.info.episode_length, task.info.metric)


def _built(name: str, build: Callable[[], gymnasium.Env], render_mode: str | None) -> gymnasium.Env:
    try:
        env = build()
    # The environments' constructors raise what they like for a missing package or a retired version.
    except Exception as error:
        raise UserError(f"task '{name}' cannot be built: {_one_line(error)}") from error
    if not isinstance(env, gymnasium.Env):
        raise UserError(f"task '{name}' cannot be built: {type(env).__name__} is no gymnasium.Env")
    try:
        check_spaces(name, env)
        mujoco_renderer = getattr(env.unwrapped, "mujoco_renderer", None)
        if render_mode is not None and mujoco_renderer is not None:
            require_gl()
            atexit.register(mujoco_renderer.close)
    except UserError:
        env.close()
        raise
    return env


class UnsupportedSpacesError(UserError):
    """The environment exists, and nothing here handles its actions or observations."""


def check_spaces(name: str, env: gymnasium.Env) -> None:
    """Refuse actions that are not a vector of bounded numbers, and observations that are not numbers.

    Raises:
        UnsupportedSpacesError: says which space is wrong.
    """
    action, observation = env.action_space, env.observation_space
    is_vector = isinstance(action, Box) and len(action.shape) == 1 and action.shape[0] > 0
    if not is_vector or not np.issubdtype(action.dtype, np.floating):
        raise UnsupportedSpacesError(
            f"task '{name}' has actions {_describe(action)}: choose one with a vector of continuous actions "
            "(discrete ones are planned)"
        )
    assert isinstance(action, Box)
    if not (np.abs([action.low, action.high]) < UNBOUNDED).all():
        raise UnsupportedSpacesError(
            f"task '{name}' has unbounded actions: choose a task with finite action bounds"
        )
    is_array = isinstance(observation, Box) and np.prod(observation.shape) > 0 and len(observation.shape) <= 2
    is_image = observation.dtype == np.uint8 and len(observation.shape or ()) > 1
    if not is_array or is_image:
        raise UnsupportedSpacesError(
            f"task '{name}' has observations {_describe(observation)}: choose a task that observes a vector"
        )


def _describe(space: Space) -> str:
    return f"Box{space.shape} of {space.dtype}" if isinstance(space, Box) else type(space).__name__


def _flat(observation: Any) -> FloatArray:
    return np.array(observation, np.float32).reshape(-1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
