"""Checkpoints of the published implementation, to and from those of RLlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tdmpc_ray.core.agents import find_agent, find_settings
from tdmpc_ray.core.agents.agent import Published
from tdmpc_ray.core.checks import shape_differences
from tdmpc_ray.envs import make_env, task_info
from tdmpc_ray.envs.multitask import action_sizes
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.acting.module import AgentModule
from tdmpc_ray.rllib.algorithms import new_config
from tdmpc_ray.rllib.checkpoints.load import MODULE, load_module
from tdmpc_ray.rllib.checkpoints.manifest import seal


def import_official(
    file: Path, task: str, out: Path, algorithm: str = "tdmpc2"
) -> tuple[str, str, dict[str, Any]]:
    """Write the networks of a published checkpoint as one of ours, without optimizers and replay.

    Args:
        file: the published checkpoint.
        task: what it was trained on, by its name in the catalog.
        out: folder of the new checkpoint.
        algorithm: whose published code wrote it.

    Returns:
        What it observes, see `make_env`; model size, and the settings in which the model differs from it.

    Raises:
        UserError: the file cannot be read, or belongs to another task; names the tensors that do not fit.
    """
    published = find_agent(algorithm).read_published(file)
    _check_tasks(file, task, published)
    obs = published.obs
    size, settings = _nearest_size(published, task, algorithm)
    config = new_config(algorithm).environment(task, obs=obs).training(model_size=size, overrides=settings)
    env = make_env(task, obs=obs)
    module = AgentModule(
        observation_space=env.observation_space,
        action_space=env.action_space,
        model_config=config.model_config,
    )
    env.close()
    if differences := shape_differences(module.networks.state_dict(), published.parameters, "in the file"):
        raise UserError(f"the checkpoint belongs to a model of another shape: {differences}")
    module.networks.load_state_dict(published.parameters)
    # These networks have learned: runners plan with them at once, as they do at the end of schedules.
    module.count_updates(max([1, *(schedule.steps for schedule in module.cfg.planner.schedules)]))
    module.save_to_path(str((out / MODULE).absolute()))
    seal(out)
    return obs, size, settings


def export_official(checkpoint: str | Path, file: Path, *, flat: bool = False) -> None:
    """Write the networks of a checkpoint in the published format.

    Args:
        checkpoint: one of ours, or the folder of a run: its newest one; or the address of one.
        file: the new file.
        flat: in the layout of older published checkpoints.

    Raises:
        UserError: no or damaged checkpoint, networks that the published code lacks, or no such folder.
    """
    module = load_module(checkpoint)
    content = module.agent.to_published(module.networks, flat=flat)
    try:
        torch.save(content, file)
    except (OSError, RuntimeError) as error:
        hint = "it is a folder" if file.is_dir() else "is there such a folder?"
        why = getattr(error, "strerror", None) or hint
        raise UserError(f"cannot write {file}: {why}") from None


def _check_tasks(file: Path, task: str, published: Published) -> None:
    """Refuse another number of tasks, or tasks in another order."""
    info, num, action_dims = task_info(task), published.num_tasks, published.action_dims
    if num != len(info.tasks):
        holds = f"{num} tasks" if num else "one task"
        asked = f"{len(info.tasks)} tasks" if info.tasks else "one task"
        example = "mt30, mt80 or TASK+TASK" if num else "a single one, such as walker-walk"
        raise UserError(f"{file} holds a model of {holds}, and --task names {asked}: name {example}")
    if info.tasks and action_dims is not None and action_dims != (ours := action_sizes(info)):
        first = next(i for i, sizes in enumerate(zip(action_dims, ours, strict=True)) if len(set(sizes)) > 1)
        raise UserError(
            f"{file}: its task {first} has actions of {action_dims[first]} numbers, {info.tasks[first]} has "
            f"{ours[first]}: name the tasks in the order of the file"
        )


def _nearest_size(published: Published, task: str, algorithm: str) -> tuple[str, dict[str, Any]]:
    """The model size with the fewest differences, and these; what no tensor shows is as the task has it."""
    cfg = published.model

    def differences(size: str) -> dict[str, Any]:
        own = new_config(algorithm).environment(task).training(model_size=size).agent().model
        return {f"model.{k}": getattr(cfg, k) for k in published.known if getattr(cfg, k) != getattr(own, k)}

    size = min(find_settings(algorithm).sizes, key=lambda size: len(differences(size)))
    return size, differences(size)
