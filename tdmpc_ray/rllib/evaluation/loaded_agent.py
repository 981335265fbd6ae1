"""A trained agent that acts without Ray, from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tdmpc_ray.core.batch import ImageAndVector
from tdmpc_ray.envs import task_info
from tdmpc_ray.errors import UserError
from tdmpc_ray.observations import ObsArray, map_parts, parts_of
from tdmpc_ray.rllib.acting.module import AgentModule
from tdmpc_ray.rllib.checkpoints.load import load_module


class LoadedAgent:
    """A trained module that acts in evaluation mode.

    Attributes:
        task: its name in the catalog, None where it was trained on another environment.
        tasks: names of a set's tasks, in the order of their ids.
        obs: what it observes, see `make_env`.
    """

    def __init__(self, module: AgentModule) -> None:
        self._module = module.eval()
        self.task: str | None = module.model_config["task"]
        self.tasks = () if self.task is None else task_info(self.task).tasks
        self.obs: str = module.model_config.get("obs", "state")

    def act(self, obs: ObsArray, is_first: np.ndarray, task: str | None = None) -> np.ndarray:
        """Plan for N environments.

        Args:
            obs: (N, *obs_shape), or a dict of images and vectors; of a set's task as the task gives them.
            is_first: the environments that have just been reset, (N,).
            task: which one of a set they play.

        Returns:
            Actions in [-1, 1], (N, A); of a set's task as many numbers as it takes.
        """
        model = self._module.networks
        device = model.device
        first = torch.as_tensor(is_first, device=device)
        seen, vector = parts_of(map_parts(lambda part: torch.as_tensor(part, device=device).float(), obs))
        if not self.tasks:
            observation = seen if vector is None else ImageAndVector(seen, vector)
            return self._module.act(observation, first, explore=False).cpu().numpy()
        assert task is not None
        task_id = self.tasks.index(task)
        padded = F.pad(seen, (0, model.obs_shape[0] - seen.shape[-1]))
        ids = torch.full((len(first),), task_id, device=device)
        actions = self._module.act(padded, first, ids, explore=False).cpu().numpy()
        return actions[:, : int(model.action_masks[task_id].sum())]


def load_agent(
    path: Path | str, seed: int | None = None, settings: Mapping[str, Any] | None = None
) -> LoadedAgent:
    """Load the newest checkpoint at or below `path`.

    Args:
        path: a checkpoint, or the folder of a run; or the address of one.
        seed: of the planner; None: another one each time, unless the run had one.
        settings: of the planner, where they shall differ from those of the training.

    Raises:
        UserError: no checkpoint, or a damaged one; unknown settings.
    """
    for key in settings or {}:
        if not key.startswith("planner."):
            raise UserError(f"only settings of the planner can change after the training, not '{key}'")
    module = load_module(path)
    module.cfg = module.cfg.with_settings(settings or {})
    if seed is not None:
        module.seed(seed)
    return LoadedAgent(module)
