"""Gymnasium ids and registered tasks, built and adapted."""

from __future__ import annotations

import atexit
import inspect
from collections.abc import Callable
from typing import Any

import gymnasium

from tdmpc_ray.envs.adapter import adapt
from tdmpc_ray.envs.extras import MODULES, require_extra
from tdmpc_ray.envs.gl import draw_anywhere, require_gl
from tdmpc_ray.envs.registered import RegisteredTask
from tdmpc_ray.envs.task import TaskInfo
from tdmpc_ray.errors import PassingError, UserError


def make_gym(info: TaskInfo, seed: int | None, render_mode: str | None) -> gymnasium.Env:
    """Build a Gymnasium task; longer than its time limit no episode lasts.

    Raises:
        UserError: it cannot be built, or `adapt` refuses it.
    """
    if info.suite in MODULES:
        require_extra(info)

    def build(**how: Any) -> gymnasium.Env:
        # Gymnasium's own time limit would trip over what old environments return before that is seen here.
        return gymnasium.make(info.simulator_id, max_episode_steps=-1, disable_env_checker=True, **how)

    return adapt(
        _built(info.name, build, render_mode), info.name, seed=seed, limit=info.episode_length, cut=True
    )


def make_registered(task: RegisteredTask, seed: int | None, render_mode: str | None) -> gymnasium.Env:
    """Build a registered task, see `register_task`.

    Raises:
        UserError: as `make_gym`.
    """
    info = task.info
    env = _built(info.name, task.make, render_mode)
    return adapt(env, info.name, seed=seed, limit=info.episode_length, metric=info.metric)


def _built(name: str, build: Callable[..., Any], render_mode: str | None) -> Any:
    draw_anywhere()
    if render_mode is not None:
        require_frames(name, build)
    try:
        env = build() if render_mode is None else build(render_mode=render_mode)
    # The environments' constructors raise what they like for a missing package or a retired version.
    except Exception as error:
        raise PassingError(f"task '{name}' cannot be built: {_one_line(error)}") from error
    mujoco_renderer = getattr(getattr(env, "unwrapped", env), "mujoco_renderer", None)
    if render_mode is not None and mujoco_renderer is not None:
        try:
            require_gl()
        except UserError:
            env.close()
            raise
        atexit.register(mujoco_renderer.close)
    return env


def require_frames(name: str, build: Callable[..., Any]) -> None:
    """Refuse films of an environment whose constructor cannot be asked for frames.

    Raises:
        UserError: it takes no `render_mode`.
    """
    try:
        inspect.signature(build).bind(render_mode="rgb_array")
    except TypeError:
        raise UserError(
            f"task '{name}' cannot be filmed: what builds it takes no render_mode (docs/environments.md)"
        ) from None
    except ValueError:  # of what is not written in Python, nothing is known
        return


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
