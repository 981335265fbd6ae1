"""What `AgentAlgorithmConfig.validate` refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from gymnasium import VectorizeMode
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from tdmpc_ray.addresses import is_address
from tdmpc_ray.core.agents import find_agent, find_settings
from tdmpc_ray.datasets.dataset import Dataset
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.checkpoints.load import find_checkpoint

# RLlib's settings that nothing here reads, and those that do what their names promise: of several, the first
# that the agent has.
_UNREAD = {
    "lr": ("update.lr",),
    "gamma": ("update.gamma", "update.discount_max"),
    "grad_clip": ("update.grad_clip_norm",),
    "train_batch_size": ("update.batch_size",),
    "_train_batch_size_per_learner": ("update.batch_size",),
    "minibatch_size": ("update.batch_size",),
    "num_epochs": ("data.utd_ratio",),
}
# Runners that return are taken back without waiting for them, and environments rebuilt one by one.
_UNREAD_FAULT_TOLERANCE = (
    "env_runner_health_probe_timeout_s",
    "env_runner_restore_timeout_s",
    "restart_failed_sub_environments",
)


def check_values(config: Any) -> None:
    """Refuse values that would fail, or mislead, later in the run.

    Raises:
        UserError: says which and what to do.
    """
    if config.episode_length is None:
        raise UserError("set training(episode_length=...): the catalog does not know this environment")
    mode = VectorizeMode(config.gym_env_vectorize_mode)
    if config.info is not None and mode == VectorizeMode.VECTOR_ENTRY_POINT:
        raise UserError(f"task '{config.task}' is no vector environment: set gym_env_vectorize_mode=SYNC")
    is_set = config.info is not None and bool(config.info.tasks)
    if is_set and not find_settings(config.agent_name).learns_sets:
        raise UserError(f"algorithm {config.agent_name} learns one task: use tdmpc2 for a set of tasks")
    if is_set and mode != VectorizeMode.SYNC:
        raise UserError("a set of tasks needs gym_env_vectorize_mode=SYNC, to share its tasks out")
    if config.videos and (config.info is None or config.total_steps is None):
        raise UserError("videos need a task of the catalog and total_steps: they are filmed at the end")
    if config.num_learners > 1 and not config.in_evaluation:
        _check_learners(config)
    if config.asynchronous and config.num_env_runners == 0 and not config.in_evaluation:
        raise UserError("asynchronous=True needs remote env runners: set env_runners(num_env_runners=...)")
    if config.num_gpus_per_env_runner and config.num_env_runners == 0 and not config.in_evaluation:
        raise UserError(
            f"num_gpus_per_env_runner={config.num_gpus_per_env_runner} without remote env runners: set "
            "num_env_runners, or leave it out; beside a learner with a GPU, acting has that one"
        )
    _check_demonstrations(config)
    if config.has_dataset and not config.in_evaluation:
        _check_dataset(config)
    optional = ("eval_every", "total_steps", "sample_lead")
    needed = ("steps_per_iteration", "updates_per_call", "weights_every", "episode_length")
    for name in (*needed, *optional):
        value = getattr(config, name)
        if value is None and name in optional:
            continue
        if not isinstance(value, int) or value <= 0:
            raise UserError(f"{name} must be a positive whole number, not {value!r}")
    if not isinstance(config.max_env_faults, int) or config.max_env_faults < 0:
        raise UserError(f"max_env_faults must be a whole number, 0 or more, not {config.max_env_faults!r}")
    for name in ("env_step_timeout_s", "learner_timeout_s"):
        timeout_s = getattr(config, name)
        if timeout_s is not None and not 0 <= timeout_s < math.inf:
            raise UserError(f"{name} must be a number of seconds, or None, not {timeout_s}")
    weights_s = config.weights_every_s
    if weights_s is not None and not 0 <= weights_s < math.inf:
        raise UserError(f"weights_every_s must be a number of seconds, or None, not {weights_s!r}")
    if config.start_from is not None and not is_address(config.start_from):
        find_checkpoint(Path(config.start_from))
    agent = config.agent()
    if find_agent(config.agent_name).extra_dim(1) and (config.has_dataset or agent.data.demonstrations):
        raise UserError(
            f"algorithm {config.agent_name} learns from steps that its own planner chose: leave data.dataset "
            "and data.demonstrations out"
        )
    if config.embed_as is not None and config.start_from is None:
        raise UserError("embed_as names a task of start_from: set start_from, or leave it out")
    if not 0 <= config.max_time_s_per_iteration < math.inf:
        raise UserError(f"max_time_s_per_iteration must not be {config.max_time_s_per_iteration}")


def _check_dataset(config: Any) -> None:
    if config.info is None:
        raise UserError("data.dataset needs a task of the catalog: its episodes are known by the task's name")
    if config.num_env_runners:
        raise UserError(
            "data.dataset takes no steps: leave num_env_runners out; evaluation_num_env_runners have "
            "evaluations beside the training"
        )
    if config.agent().data.demonstrations:
        raise UserError("data.dataset is all that is learned from: leave data.demonstrations out")
    dataset = Dataset(Path(config.agent().data.dataset))
    dataset.of_tasks(config.info.tasks or (config.info.name,))


def _check_demonstrations(config: Any) -> None:
    if config.start_from is not None and config.agent().data.cloning:
        raise UserError(
            "data.cloning imitates demonstrations before the first step, and start_from brings networks that "
            "have learned: choose one of them"
        )
    data, size = config.agent().data, config.agent().update.batch_size // max(config.num_learners, 1)
    for step in (0.0, math.inf):
        shown = data.num_demonstrations(size, step)
        if data.demonstrations and not 0 < shown < size:
            raise UserError(
                f"data.demonstration_share={data.share(step):g} of a learner's {size} sequences is "
                f"{'none' if shown == 0 else 'all'} of them: change it, or raise update.batch_size"
            )


def _check_learners(config: Any) -> None:
    num, agent, gpus = config.num_learners, config.agent(), config.num_gpus_per_learner
    if config.num_env_runners < num and not config.has_dataset:
        raise UserError(
            f"num_learners={num} needs a remote env runner for each learner, or more: "
            f"set env_runners(num_env_runners={num})"
        )
    if agent.update.batch_size % num:
        raise UserError(
            f"update.batch_size={agent.update.batch_size} must be a multiple of num_learners={num}"
        )
    if agent.data.capacity // num <= agent.planner.horizon:
        raise UserError(f"data.capacity={agent.data.capacity} is too small for num_learners={num}: raise it")
    if 0 < gpus < 1:
        raise UserError(
            f"num_gpus_per_learner={gpus}: several learners cannot share a GPU: set 1, or fewer learners"
        )


def refuse_unread(config: Any) -> None:
    """Refuse RLlib's settings that nothing here reads: a setting without effect is a silent error.

    Raises:
        UserError: says which, and what to set instead.
    """
    defaults = vars(AlgorithmConfig())
    known = find_settings(config.agent_name).keys
    for name, (*others, ours) in _UNREAD.items():
        if getattr(config, name) != defaults[name]:
            ours = next((key for key in others if key in known), ours)
            theirs = name.removeprefix("_")
            raise UserError(f"tdmpc_ray does not read '{theirs}': set overrides={{'{ours}': ...}} instead")
    for name in _UNREAD_FAULT_TOLERANCE:
        if getattr(config, name) != defaults[name]:
            raise UserError(f"tdmpc_ray does not read '{name}': leave it out (docs/reliability.md)")
    unit, duration = config.evaluation_duration_unit, config.evaluation_duration
    if unit != "episodes" or not isinstance(duration, int) or duration <= 0:
        raise UserError(f"evaluation_duration must be a number of episodes, not {duration!r} {unit}")
    if not config.equal_episodes and (config.evaluation_config or {}).get("num_envs_per_env_runner", 1) > 1:
        raise UserError(
            "evaluation_config: num_envs_per_env_runner above 1 favours short episodes: leave it out"
        )
