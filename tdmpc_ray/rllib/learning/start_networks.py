"""Networks that a run begins with (`start_from`): read, compared with the run's own, completed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import torch
from gymnasium import VectorizeMode
from gymnasium.vector import SyncVectorEnv
from ray.rllib.env.env_context import EnvContext
from torch import Tensor

from tdmpc_ray.core.agents import find_agent
from tdmpc_ray.core.agents.agent import Networks
from tdmpc_ray.core.checks import shape_differences
from tdmpc_ray.envs.multitask import action_sizes
from tdmpc_ray.envs.spaces import Shapes
from tdmpc_ray.errors import UserError
from tdmpc_ray.observations import parts_of
from tdmpc_ray.rllib.acting.task_env import env_creator
from tdmpc_ray.rllib.checkpoints.load import load_module

_PREFIX = "networks."


def read_networks(path: str | Path) -> dict[str, Tensor]:
    """The networks of a checkpoint, or of the newest one of a run, by the keys of `AgentModule`.

    Raises:
        UserError: no checkpoint, or a damaged one.
    """
    return load_module(path).state_dict()


def completed(given: Mapping[str, Tensor], own: Networks) -> dict[str, Tensor]:
    """The given networks; optional parts that they lack are the run's own.

    Raises:
        UserError: they differ in another way; names the first tensors that do.
    """
    parts = tuple(f"{_PREFIX}{part}" for part in missing_parts(given, own))
    ours = {f"{_PREFIX}{key}": value for key, value in own.state_dict().items()}
    state = {**{key: value for key, value in ours.items() if key.startswith(parts)}, **given}
    if differences := shape_differences(_unprefixed(ours), _unprefixed(state), "in start_from"):
        raise UserError(
            f"the networks of start_from do not fit this model: {differences}; "
            "take the model size, the model settings and the task that they were trained with"
        )
    return state


def missing_parts(given: Mapping[str, Tensor], own: Networks) -> list[str]:
    """The optional parts that the run's own networks have and the given ones lack."""

    def have(keys: Iterable[str], part: str) -> bool:
        return any(key.startswith(part) for key in keys)

    return [
        part for part in own.optional if have(own.state_dict(), part) and not have(_unprefixed(given), part)
    ]


def check_networks(given: Mapping[str, Tensor], configs: Iterable[Any]) -> list[str]:
    """Compare networks with the models of runs, before any of them has started.

    The environment is built here for its spaces. Where that cannot be, as remote env runners may have what it
    takes alone, or a whole vector is one object, only `completed` compares, in the learner.

    Returns:
        Notes for the user.

    Raises:
        UserError: as `completed`, or an environment cannot be built.
    """
    notes: dict[str, None] = {}
    models: dict[object, Networks | None] = {}
    for config in configs:
        key = (config.task or config.env, config.agent().model)
        if key not in models:
            models[key] = own = _own_networks(config)
            if own is not None:
                completed(given, own)
                parts = (part.strip("._").replace("_", " ") for part in missing_parts(given, own))
                notes |= dict.fromkeys(
                    f"the networks of start_from have no {part}: the model's own begins untrained"
                    for part in parts
                )
    return list(notes)


def _own_networks(config: Any) -> Networks | None:
    """Those of a run, without memory; None where they cannot be told."""
    if VectorizeMode(config.gym_env_vectorize_mode) == VectorizeMode.VECTOR_ENTRY_POINT:
        return None
    create = env_creator(config.env, config.env_step_timeout_s, config.episode_length)
    context = EnvContext({**config.env_config, "slot": 0, "num_slots": 1}, worker_index=0)
    try:
        env = SyncVectorEnv([partial(create, context)])
    except UserError:
        if config.num_env_runners > 0:
            return None
        raise
    try:
        obs = config.build_env_to_module_connector(env=env).observation_space
        action = env.single_action_space
    finally:
        env.close()
    if not all(isinstance(space, gymnasium.spaces.Box) for space in (parts_of(obs)[0], action)):
        return None
    shapes = Shapes.of(obs, action)
    sizes = action_sizes(config.info) if config.info is not None and config.info.tasks else None
    cfg = config.agent()
    with torch.device("meta"):
        return find_agent(cfg.algorithm).make_networks(
            shapes.obs_shape, shapes.action_dim, cfg.model, action_dims=sizes, vector_dim=shapes.vector_dim
        )


def _unprefixed(networks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(_PREFIX): x for key, x in networks.items() if key.startswith(_PREFIX)}
