"""Networks that a run begins with (`start_from`): read, compared with the run's own, completed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import torch
import torch.nn.functional as F
from gymnasium import VectorizeMode
from gymnasium.vector import SyncVectorEnv
from ray.rllib.env.env_context import EnvContext
from torch import Tensor

from tdmpc_ray.core.agents import find_agent
from tdmpc_ray.core.agents.agent import Networks
from tdmpc_ray.core.checks import shape_differences
from tdmpc_ray.envs import task_info
from tdmpc_ray.envs.multitask import action_sizes
from tdmpc_ray.envs.spaces import Shapes
from tdmpc_ray.errors import UserError
from tdmpc_ray.observations import parts_of
from tdmpc_ray.rllib.acting.task_env import env_creator
from tdmpc_ray.rllib.checkpoints.load import load_module

_PREFIX = "networks."
MEAN = "mean"  # of all embeddings
BEST = "best"  # of them, by the first episodes; until then, their mean


class StartNetworks(NamedTuple):
    """Networks to begin with.

    Attributes:
        state: by the keys of `AgentModule`.
        tasks: names of those that they have learned together; empty with one task.
    """

    state: dict[str, Tensor]
    tasks: tuple[str, ...] = ()


def read_networks(path: str | Path) -> StartNetworks:
    """The networks of a checkpoint, or of the newest one of a run.

    Raises:
        UserError: no checkpoint, or a damaged one.
    """
    module = load_module(path)
    task = module.model_config["task"]
    is_set = module.networks.num_tasks > 0 and task is not None
    return StartNetworks(module.state_dict(), task_info(task).tasks if is_set else ())


def state_for(
    start: StartNetworks, own: Networks, config: Any, embed_as: str | None = None
) -> dict[str, Tensor]:
    """What a run's networks begin as.

    Args:
        embed_as: the task whose embedding a new one begins with; None: as the config says.

    Raises:
        UserError: they do not fit; says where.
    """
    tasks = config.info.tasks if config.info is not None else ()
    if not start.tasks or (own.num_tasks and not tasks):
        if config.embed_as is not None:
            raise UserError("embed_as is for networks that have learned several tasks")
        return completed(start.state, own)
    agent, of_set = find_agent(config.agent_name), _unprefixed(start.state)
    whose = embed_as or config.embed_as
    if own.num_tasks:
        made = agent.of_tasks(of_set, _shares_of_set(start.tasks, tasks, whose))
    else:
        made = agent.of_one_task(of_set, embedding_shares(start.tasks, config.task, whose), own)
    rest = {key: x for key, x in start.state.items() if not key.startswith(_PREFIX)}
    return completed({**rest, **{f"{_PREFIX}{key}": x for key, x in made.items()}}, own)


def _shares_of_set(learned: Sequence[str], tasks: Sequence[str], embed_as: str | None) -> Tensor:
    """Of each learned embedding in those of a set, by name, (M, N); `embed_as` is for its new tasks."""
    if embed_as == BEST:
        raise UserError(f"embed_as: {BEST} is for a run of one task: take a task's name or {MEAN}")
    if embed_as is not None and set(tasks) <= set(learned):
        raise UserError("embed_as is for tasks that those of start_from are not: leave it out")
    known = set(learned)
    return torch.stack([embedding_shares(learned, t, None if t in known else embed_as) for t in tasks])


def embedding_shares(tasks: Sequence[str], task: str | None, embed_as: str | None) -> Tensor:
    """Of each learned task's embedding in a new one's, (N,).

    Raises:
        UserError: nothing says whose.
    """
    if embed_as in (MEAN, BEST):
        return torch.full((len(tasks),), 1 / len(tasks))
    name = task if embed_as is None else _catalog_name(embed_as)
    if name is None or name not in tasks:
        wrong = f"'{task}' is none of" if embed_as is None else f"embed_as: '{embed_as}' is none of"
        raise UserError(
            f"{wrong} the tasks that the networks of start_from have learned: set embed_as to that of them "
            f"which is like the new one, to {MEAN}, or to {BEST} ({', '.join(tasks)})"
        )
    return F.one_hot(torch.tensor(tasks.index(name)), len(tasks)).float()


def _catalog_name(task: str) -> str:
    try:
        return task_info(task).name
    except UserError:  # a task that nobody here knows
        return task


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


def check_networks(start: StartNetworks, configs: Iterable[Any]) -> list[str]:
    """Compare networks with the models of runs, before any of them has started.

    The environment is built here for its spaces. Where that cannot be, as remote env runners may have what it
    takes alone, or a whole vector is one object, only `state_for` compares, in the learner.

    Returns:
        Notes for the user.

    Raises:
        UserError: as `state_for`, or an environment cannot be built.
    """
    notes: dict[str, None] = {}
    models: dict[object, Networks | None] = {}
    for config in configs:
        key = (config.task or config.env, config.agent().model)
        if key not in models:
            models[key] = own = own_networks(config)
            if own is not None:
                state_for(start, own, config)
                parts = (part.strip("._").replace("_", " ") for part in missing_parts(start.state, own))
                notes |= dict.fromkeys(
                    f"the networks of start_from have no {part}: the model's own begins untrained"
                    for part in parts
                )
    return list(notes)


def own_networks(config: Any) -> Networks | None:
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
