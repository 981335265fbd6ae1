"""Environments as env runners build them: the catalog's tasks, or the user's own, each guarded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import ray
from gymnasium import VectorizeMode
from ray.rllib.env.env_context import EnvContext
from ray.tune.registry import ENV_CREATOR, _global_registry

from tdmpc_ray.envs import TaskInfo, make_env, registered, task_info
from tdmpc_ray.envs.adapter import adapt, call_creator
from tdmpc_ray.envs.faults import GuardedEnv
from tdmpc_ray.envs.gl import draw_anywhere
from tdmpc_ray.envs.listing import require_task
from tdmpc_ray.envs.multitask import make_set


def task_config(name: str) -> dict[str, Any]:
    """What `TaskEnv` needs to build a task in any process of a cluster."""
    found = (registered.find(task) for task in task_info(name).tasks or (name,))
    return {"task": name, "registered": [task for task in found if task is not None]}


def read_task_config(config: dict[str, Any]) -> TaskInfo:
    """The task of a `task_config`, made known to this process where another one registered it."""
    for task in config.get("registered", ()):
        registered.remember(task)
    return task_info(config["task"])


class TaskEnv(gymnasium.Wrapper):
    """The catalog's task `config["task"]`; a class: names registered with RLlib end with the session.

    Args:
        config: a `task_config`; also `obs` (see `make_env`), `timeout_s` (see `GuardedEnv`), and of a set
            `slot` and `num_slots` (see `make_set`).
    """

    def __init__(self, config: dict[str, Any]) -> None:
        info, timeout_s = read_task_config(config), config.get("timeout_s")
        if info.tasks:
            make = partial(guarded_task, timeout_s=timeout_s)
            super().__init__(make_set(info, None, config["slot"], config["num_slots"], make))
        else:
            super().__init__(guarded_task(info.name, timeout_s=timeout_s, obs=config.get("obs", "state")))


def guarded_task(
    name: str, seed: int | None = None, *, timeout_s: float | None = None, **how: Any
) -> GuardedEnv:
    """A task of the catalog that survives its faults; `how` as in `make_env`."""
    return GuardedEnv(partial(make_env, name, seed=seed, **how), name, timeout_s, seed=seed)


def env_creator(
    env: Any, timeout_s: float | None, episode_length: int | None = None, seed: int | None = None
) -> Callable[[EnvContext], gymnasium.Env]:
    """What builds RLlib's `config.env`: a class or function, a registered name, or an id of Gymnasium.

    Args:
        env: RLlib's.
        timeout_s: see `GuardedEnv`.
        episode_length: of an environment of the user's own, where it is known.
        seed: of its first episode, where its reset gives none.
    """
    if env is TaskEnv:  # guards its tasks itself
        return TaskEnv
    create = env if callable(env) else partial(_from_gymnasium, env)
    if isinstance(env, str) and _global_registry.contains(ENV_CREATOR, env):
        create = _global_registry.get(ENV_CREATOR, env)
    return partial(_guarded, env_name(env), create, timeout_s, episode_length, seed)


def env_name(env: Any) -> str:
    """What errors call RLlib's `config.env`."""
    return env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__)


def require_env(config: Any) -> None:
    """Refuse an environment that the main process would build anyway, before Ray takes seconds to start.

    Raises:
        UserError: it cannot be built, or `adapt` refuses it.
    """
    if config.env is TaskEnv:
        require_task(read_task_config(config.env_config).name)
        return
    is_one_object = VectorizeMode(config.gym_env_vectorize_mode) == VectorizeMode.VECTOR_ENTRY_POINT
    if config.env is None or config.num_env_runners or is_one_object or ray.is_initialized():
        return
    create = env_creator(config.env, config.env_step_timeout_s, config.episode_length)
    create(EnvContext(config.env_config, worker_index=0, num_workers=0, vector_index=0)).close()


def _from_gymnasium(name: str, context: EnvContext) -> gymnasium.Env:
    return gymnasium.make(name, **context)


def _guarded(
    name: str,
    create: Callable[[EnvContext], gymnasium.Env],
    timeout_s: float | None,
    episode_length: int | None,
    seed: int | None,
    context: EnvContext,
) -> GuardedEnv:
    def build() -> gymnasium.Env:
        draw_anywhere()
        return adapt(call_creator(create, context), name, seed=seed, limit=episode_length)

    return GuardedEnv(build, name, timeout_s, seed=seed)
