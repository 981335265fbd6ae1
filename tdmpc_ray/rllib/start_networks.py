"""Networks that a run begins with (`start_from`): read, compared with the run's own, completed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import gymnasium
import torch
from gymnasium import VectorizeMode
from gymnasium.vector import SyncVectorEnv
from ray.rllib.env.env_context import EnvContext
from torch import Tensor

from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.checks import shape_differences
from tdmpc_ray.envs.multitask import action_sizes
from tdmpc_ray.envs.spaces import Shapes
from tdmpc_ray.errors import UserError
from tdmpc_ray.observations import parts_of
from tdmpc_ray.rllib.checkpoint import load_module
from tdmpc_ray.rllib.task_env import env_creator

if TYPE_CHECKING:
    from tdmpc_ray.rllib.config import TDMPC2Config

_MODEL, _HEAD = "world_model.", "world_model.termination_head."


def read_networks(path: str | Path) -> dict[str, Tensor]:
    """The networks of a checkpoint, or of the newest one of a run, by the keys of `TDMPC2RLModule`.

    Raises:
        UserError: no checkpoint, or a damaged one.
    """
    return load_module(path).state_dict()


def completed(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The given networks; a termination head that they lack is the run's own.

    Raises:
        UserError: they differ in another way; names the first tensors that do.
    """
    state = {**({} if has_head(given) else {k: v for k, v in own.items() if k.startswith(_HEAD)}), **given}
    if differences := shape_differences(_of_model(own), _of_model(state), "in start_from"):
        raise UserError(
            f"the networks of start_from do not fit this model: {differences}; "
            "take the model size, the model settings and the task that they were trained with"
        )
    return state


def has_head(networks: Mapping[str, Tensor]) -> bool:
    """Whether they foresee terminations."""
    return any(key.startswith(_HEAD) for key in networks)


def check_networks(given: Mapping[str, Tensor], configs: Iterable[TDMPC2Config]) -> list[str]:
    """Compare networks with the models of runs, before any of them has started.

    The environment is built here for its spaces. Where that cannot be, as remote env runners may have what it
    takes alone, or a whole vector is one object, only `completed` compares, in the learner.

    Returns:
        Notes for the user.

    Raises:
        UserError: as `completed`, or an environment cannot be built.
    """
    notes: list[str] = []
    models: dict[object, dict[str, Tensor]] = {}
    for config in configs:
        key = (config.task or config.env, config.agent().model)
        if key not in models:
            models[key] = _own_networks(config)
            if models[key]:
                completed(given, models[key])
        if has_head(models[key]) and not has_head(given):
            notes = ["the networks of start_from have no termination head: the model's own begins untrained"]
    return notes


def _own_networks(config: TDMPC2Config) -> dict[str, Tensor]:
    """Those of a run, without memory; none where they cannot be told."""
    if VectorizeMode(config.gym_env_vectorize_mode) == VectorizeMode.VECTOR_ENTRY_POINT:
        return {}
    create = env_creator(config.env, config.env_step_timeout_s, config.episode_length)
    context = EnvContext({**config.env_config, "slot": 0, "num_slots": 1}, worker_index=0)
    try:
        env = SyncVectorEnv([partial(create, context)])
    except UserError:
        if config.num_env_runners > 0:
            return {}
        raise
    try:
        obs = config.build_env_to_module_connector(env=env).observation_space
        action = env.single_action_space
    finally:
        env.close()
    if not all(isinstance(space, gymnasium.spaces.Box) for space in (parts_of(obs)[0], action)):
        return {}
    shapes = Shapes.of(obs, action)
    sizes = action_sizes(config.info) if config.info is not None and config.info.tasks else None
    with torch.device("meta"):
        model = WorldModel(
            shapes.obs_shape,
            shapes.action_dim,
            config.agent().model,
            action_dims=sizes,
            vector_dim=shapes.vector_dim,
        )
    return {f"{_MODEL}{key}": value for key, value in model.state_dict().items()}


def _of_model(networks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(_MODEL): value for key, value in networks.items() if key.startswith(_MODEL)}
