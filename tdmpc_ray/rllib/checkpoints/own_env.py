"""The environment of a checkpoint's run, built again from the config in it, or another one in its place."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
from gymnasium import VectorizeMode
from ray.rllib.env.env_context import EnvContext
from ray.tune.registry import ENV_CREATOR, _global_registry

from tdmpc_ray.envs import registered, task_info
from tdmpc_ray.envs.spaces import Shapes
from tdmpc_ray.errors import UserError, reason
from tdmpc_ray.rllib.acting.task_env import env_creator, env_name
from tdmpc_ray.rllib.checkpoints.foreign_pickle import read_foreign
from tdmpc_ray.rllib.checkpoints.manifest import verify

if TYPE_CHECKING:
    from tdmpc_ray.rllib.acting.module import AgentModule

_CONFIG_FILE = "class_and_ctor_args.pkl"  # RLlib's, of the algorithm
_NAME_IT = "name an environment with --env MODULE:CLASS"


@dataclass(frozen=True)
class OwnEnv:
    """An environment that no catalog knows.

    Attributes:
        env: a class or function, or a name that this process has registered with RLlib.
        env_config: what it is built from.
        episode_length: no episode lasts longer, in agent steps.
    """

    env: Any
    env_config: Mapping[str, Any]
    episode_length: int

    @property
    def name(self) -> str:
        """What errors call it."""
        return env_name(self.env)

    def guarded(
        self, seed: int | None = None, *, timeout_s: float | None = None, render_mode: str | None = None
    ) -> gymnasium.Env:
        """Build it as env runners do: it survives its faults, see `GuardedEnv`.

        Raises:
            UserError: it cannot be built, or `adapt` refuses it.
        """
        how = {} if render_mode is None else {"render_mode": render_mode}
        context = EnvContext({**self.env_config, **how}, worker_index=0)
        return env_creator(self.env, timeout_s, self.episode_length, seed)(context)

    def require_fit(self, env: gymnasium.Env, module: AgentModule) -> None:
        """Refuse one that observes or takes other numbers than the module.

        Raises:
            UserError: says both.
        """
        has = Shapes.of(env.observation_space, env.action_space)
        needs = Shapes.of(module.observation_space, module.action_space)
        if has != needs:
            raise UserError(
                f"environment '{self.name}' has {_worded(has)}; this agent was trained with {_worded(needs)}"
            )


def own_env(checkpoint: Path, task: str | None, given: Any = None) -> OwnEnv:
    """The environment that a run was trained on, or the given one with its length of an episode.

    Args:
        checkpoint: a local folder.
        task: of the catalog, that the run was trained on.
        given: a class or function, or `MODULE:CLASS`.

    Raises:
        UserError: it cannot be imported or built here; or the checkpoint does not know it.
    """
    env = env_by_name(given) if isinstance(given, str) else given
    if task is not None:
        return OwnEnv(env, {}, task_info(task).episode_length)
    config, missing = _read_config(checkpoint)
    if not config:
        raise UserError(f"{checkpoint} is no checkpoint of a run: its environment is not known")
    if env is None:
        env = config["env"]
        if missing:
            raise UserError(_cannot_import(missing))
        if isinstance(env, str) and not _global_registry.contains(ENV_CREATOR, env):
            raise UserError(f"environment '{env}' is not registered with RLlib here: {_NAME_IT}")
        if VectorizeMode(config["gym_env_vectorize_mode"]) == VectorizeMode.VECTOR_ENTRY_POINT:
            raise UserError(f"environment '{env_name(env)}' is a whole vector of them: {_NAME_IT}")
    return OwnEnv(env, config["env_config"], config["_episode_length"])


def know_tasks(checkpoint: Path, task: str | None) -> None:
    """Make the tasks known here that only the process that trained had registered.

    What is known already stays as it is. What cannot be imported here says so where it is built.

    Args:
        checkpoint: a local folder.
        task: that it was trained on; None: none of the catalog.
    """
    try:
        if task is not None:
            task_info(task)
    except UserError:
        config, missing = _read_config(checkpoint)
        for found in config.get("env_config", {}).get("registered", ()):
            if registered.find(found.info.name) is None:
                make = partial(_refuse, missing) if missing else found.make
                registered.remember(replace(found, make=make))


def env_by_name(name: str) -> Callable[..., Any]:
    """The class or function `MODULE:CLASS`.

    Raises:
        UserError: there is none, or its module cannot be imported.
    """
    module, _, path = name.partition(":")
    if not module or not path:
        raise UserError(f"--env {name}: write MODULE:CLASS, such as --env my_lab.envs:Arm")
    try:
        found = operator.attrgetter(path)(import_module(module))
    except Exception as error:  # of foreign code, anything may come
        raise UserError(
            f"--env {name} cannot be imported ({reason(error)}): install it, call from the folder that its "
            "module lies in, or mend it or its name"
        ) from error
    if not callable(found):
        raise UserError(f"--env {name} is no class or function but {type(found).__name__}")
    return found


def _read_config(checkpoint: Path) -> tuple[dict[str, Any], str]:
    """The state of the run's config and what of it cannot be imported here; networks alone have none."""
    file = checkpoint / _CONFIG_FILE
    if not file.is_file():
        return {}, ""
    verify(checkpoint, below=_CONFIG_FILE)
    try:
        info, missing = read_foreign(file)
        return info["ctor_args_and_kwargs"][0][0], missing
    except Exception as error:  # of foreign classes, anything may come
        raise UserError(f"the config in {checkpoint} cannot be read: {reason(error)}") from error


def _cannot_import(missing: str) -> str:
    return f"cannot import {missing}: install it, call from the folder that its module lies in, or {_NAME_IT}"


def _refuse(missing: str, **_: Any) -> Any:
    raise UserError(_cannot_import(missing))


def _worded(shapes: Shapes) -> str:
    beside = f" and a vector of {shapes.vector_dim}" if shapes.vector_dim else ""
    return f"observations {shapes.obs_shape}{beside} and actions {(shapes.action_dim,)}"
