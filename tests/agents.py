"""Checkpoints of agents that nobody has trained, for tests of what is done with checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import torch
from ray import cloudpickle
from ray.rllib.env.env_context import EnvContext

from tdmpc_ray.envs import make_env, task_info
from tdmpc_ray.envs.multitask import make_set
from tdmpc_ray.rllib import TDMPC2, TDMPC2Config
from tdmpc_ray.rllib.acting.module import AgentModule
from tdmpc_ray.rllib.acting.task_env import env_creator
from tdmpc_ray.rllib.checkpoints.load import MODULE
from tdmpc_ray.rllib.checkpoints.manifest import seal


def random_checkpoint(
    folder: Path,
    task: str,
    overrides: Mapping[str, Any],
    size: str = "tiny",
    preset: str = "paper",
    obs: str = "state",
) -> Path:
    """A whole checkpoint without a replay; its networks, and so the values that it sees, are random."""
    config = TDMPC2Config().environment(task, obs=obs)
    config = config.training(model_size=size, preset=preset, overrides=overrides)
    env = make_set(task_info(task), 0) if task_info(task).tasks else make_env(task, obs=obs)
    _save(config, env, folder)
    seal(folder)
    return folder


def run_checkpoint(folder: Path, config: TDMPC2Config) -> Path:
    """The same of a run on any environment, with its config as RLlib writes it."""
    create = env_creator(config.env, None, config.episode_length)
    _save(config, create(EnvContext(config.env_config, worker_index=0)), folder)
    info = {"class": TDMPC2, "ctor_args_and_kwargs": ((config.get_state(),), {})}
    (folder / TDMPC2.CLASS_AND_CTOR_ARGS_FILE_NAME).write_bytes(cloudpickle.dumps(info))
    seal(folder)
    return folder


def _save(config: TDMPC2Config, env: gymnasium.Env, folder: Path) -> None:
    torch.manual_seed(0)
    module = AgentModule(
        observation_space=env.observation_space,
        action_space=env.action_space,
        model_config=config.model_config,
    )
    env.close()
    # As built, it would value all actions alike.
    for layers in (module.networks.reward_head, module.networks.q_ensemble.layers):
        torch.nn.init.normal_(layers[-1].weight, std=0.3)  # type: ignore[arg-type]
    module.grad_updates += 1
    module.save_to_path(str((folder / MODULE).absolute()))
