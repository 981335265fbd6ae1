"""A run's replay: how many rows it has, and whether they fit."""

from __future__ import annotations

import math
from typing import Any

from ray._common.utils import get_system_memory

from tdmpc_ray.core.agents import find_agent
from tdmpc_ray.core.replay.size import no_memory, row_bytes, rows_needed
from tdmpc_ray.envs import TaskInfo, task_info, task_shapes, task_sizes
from tdmpc_ray.envs.images import FRAMES, STACK_SHAPES
from tdmpc_ray.envs.spaces import Shapes
from tdmpc_ray.rllib.acting.fragments import RUNNER_STEPS


def replay_rows(config: Any) -> int:
    """Rows of each learner's replay."""
    agent = config.agent()
    return rows_needed(
        agent.data.capacity // max(config.num_learners, 1),
        config.total_steps,
        horizon=agent.planner.horizon,
        num_envs=max(config.num_env_runners, 1) * config.num_envs_per_env_runner,
        fragment=max(config.get_rollout_fragment_length(), RUNNER_STEPS),
        episode_length=_shortest_episode(config),
    )


def held_out_rows(config: Any, rows: int) -> int:
    """Rows for the episodes that are kept from training, beside `rows` of the replay.

    Their share, and as whole ones are kept, one more; at least a fragment, with what a ring needs beside it.
    """
    agent, info = config.agent(), config.info
    lengths = [task_info(task).episode_length for task in info.tasks or (info.name,)] if info else []
    longest = max([*lengths, config.episode_length or 0])
    fragment = max(config.get_rollout_fragment_length(), RUNNER_STEPS)
    least = fragment + agent.planner.horizon + 2
    share = math.ceil(agent.data.validation_share * rows)
    return share + max(longest + 1, least) * max(config.num_envs_per_env_runner, 1)


def replay_bytes(config: Any, shapes: Shapes) -> int:
    """Memory of each learner's replay, with what is kept from training."""
    num_frames = FRAMES if len(shapes.obs_shape) == 3 else 1
    num_tasks = len(config.info.tasks) if config.info else 0
    is_prioritized = config.agent().data.priority_alpha > 0
    kind = (num_frames, num_tasks, is_prioritized)
    extra = find_agent(config.agent_name).extra_dim(shapes.action_dim)
    row = row_bytes(shapes.obs_shape, shapes.action_dim, *kind, shapes.vector_dim, extra)
    rows = replay_rows(config)
    return row * (rows + (held_out_rows(config, rows) if config.agent().data.validation_share else 0))


def with_memory(config: Any) -> Any:
    """The config with its replay's memory among the resources of whoever holds it.

    Not for environments of one's own, whose sizes are not known before they are built.
    """
    if config.info is None or config.has_dataset:
        return config
    shapes = observed_shapes(config.info, config.env_config.get("obs", "state"))
    memory = {"memory": replay_bytes(config, shapes)}
    holder = "custom_resources_per_learner" if config.num_learners else "custom_resources_for_main_process"
    setattr(config, holder, {**memory, **(getattr(config, holder) or {})})
    return config


def require_memory(config: Any, shapes: Shapes) -> None:
    """Refuse a replay that this machine has no memory for.

    Raises:
        UserError: names the setting.
    """
    needed, here = replay_bytes(config, shapes), get_system_memory()
    if needed > here:
        raise no_memory(needed, here)


def observed_shapes(info: TaskInfo, obs: str) -> Shapes:
    """Of a task, or of the largest of a set, by state or from images."""
    if info.tasks:
        sizes = [task_sizes(name) for name in info.tasks]
        return Shapes((max(obs for obs, _ in sizes),), max(action for _, action in sizes))
    shapes = task_shapes(info.name)
    return shapes._replace(obs_shape=STACK_SHAPES[1]) if obs == "rgb" else shapes


def _shortest_episode(config: Any) -> int | None:
    """Agent steps; None where an episode may end at any step."""
    info = config.info
    if info is None or not config.equal_episodes:
        return None
    tasks = [task_info(name) for name in info.tasks or (info.name,)]
    if any(task.suite == "registered" for task in tasks):
        return None
    return min(task.episode_length for task in tasks)
