"""Networks whose predictions are further targets (`update.teacher`)."""

from __future__ import annotations

from typing import Any

from tdmpc_ray.core.agents.agent import Networks
from tdmpc_ray.envs import task_info
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.checkpoints.load import load_module
from tdmpc_ray.rllib.learning.start_networks import own_networks


def read_teacher(config: Any) -> Networks | None:
    """The teacher of a run, compared with what the run learns; None: it has none.

    Raises:
        UserError: no checkpoint, a damaged one, or one of another algorithm, task or observation.
    """
    path = config.agent().teacher
    if not path:
        return None
    module = load_module(path)
    networks, task = module.networks, module.model_config["task"]
    if module.cfg.algorithm != config.agent_name:
        raise UserError(
            f"update.teacher is of algorithm '{module.cfg.algorithm}', the run of '{config.agent_name}'"
        )
    if (theirs := _names(task)) != (ours := _names(config.task)):
        raise UserError(f"update.teacher has learned {_listed(theirs)}, the run learns {_listed(ours)}")
    own = own_networks(config)
    sizes = (networks.obs_shape, networks.action_dim)
    if own is not None and (own.obs_shape, own.action_dim) != sizes:
        raise UserError(
            f"update.teacher has observations of {sizes[0]} and actions of {sizes[1]} numbers, the run of "
            f"{own.obs_shape} and {own.action_dim}"
        )
    return networks.requires_grad_(False).eval()


def _names(task: str | None) -> tuple[str, ...]:
    """Of a set's tasks in the order of their ids, or of one."""
    if task is None:
        return ()
    info = task_info(task)
    return info.tasks or (info.name,)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "an environment without a name"
