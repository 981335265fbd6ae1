"""Checkpoints of the published implementation, to and from those of RLlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmpc_ray.core.agents.tdmpc2.official import infer_config, load_parameters, read_published, to_official
from tdmpc_ray.core.config import MODEL_SIZES, ModelConfig
from tdmpc_ray.envs import make_env, task_info
from tdmpc_ray.envs.multitask import action_sizes
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.checkpoint import MODULE, load_module
from tdmpc_ray.rllib.config import TDMPC2Config
from tdmpc_ray.rllib.manifest import seal
from tdmpc_ray.rllib.module import TDMPC2RLModule


def import_official(file: Path, task: str, out: Path) -> tuple[str, str, dict[str, Any]]:
    """Write the networks of a published checkpoint as one of ours, without optimizers and replay.

    Args:
        file: the published checkpoint.
        task: what it was trained on, by its name in the catalog.
        out: folder of the new checkpoint.

    Returns:
        What it observes, see `make_env`; model size, and the settings in which the model differs from it.

    Raises:
        UserError: the file cannot be read, or belongs to another task; names the tensors that do not fit.
    """
    parameters, log_std_range, action_dims = read_published(file)
    _check_tasks(file, task, parameters, action_dims)
    obs = "state" if "encoder.0.weight" in parameters else "rgb"
    size, settings = _nearest_size(infer_config(parameters, log_std_range), task, obs)
    config = TDMPC2Config().environment(task, obs=obs).training(model_size=size, overrides=settings)
    env = make_env(task, obs=obs)
    module = TDMPC2RLModule(
        observation_space=env.observation_space,
        action_space=env.action_space,
        model_config=config.model_config,
    )
    env.close()
    load_parameters(module.world_model, parameters)
    module.count_updates(1)  # these networks have learned: runners plan with them at once
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
    state = to_official(load_module(checkpoint).world_model, flat=flat)
    try:
        torch.save({"model": state}, file)
    except (OSError, RuntimeError) as error:
        hint = "it is a folder" if file.is_dir() else "is there such a folder?"
        why = getattr(error, "strerror", None) or hint
        raise UserError(f"cannot write {file}: {why}") from None


def _check_tasks(
    file: Path, task: str, parameters: Mapping[str, Tensor], action_dims: list[int] | None
) -> None:
    """Refuse another number of tasks, or tasks in another order."""
    info, num = task_info(task), len(parameters.get("task_embedding", ()))
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


def _nearest_size(cfg: ModelConfig, task: str, obs: str) -> tuple[str, dict[str, Any]]:
    """The model size with the fewest differences, and these."""
    # What no tensor shows stays as the task has it.
    encoder = ("enc_dim", "num_enc_layers") if obs == "state" else ("num_channels",)
    if task_info(task).tasks:
        encoder = (*encoder, "task_dim")
    rest = ("mlp_dim", "latent_dim", "num_q", "num_bins", "log_std_min", "log_std_max", "episodic")
    shown = (*encoder, *rest)

    def differences(size: str) -> dict[str, Any]:
        own = TDMPC2Config().environment(task).training(model_size=size).agent().model
        return {f"model.{k}": getattr(cfg, k) for k in shown if getattr(cfg, k) != getattr(own, k)}

    size = min(MODEL_SIZES, key=lambda size: len(differences(size)))
    return size, differences(size)
