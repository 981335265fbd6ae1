"""RLlib's way from observations to the planner and back, and what the planner needs to know beside them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import EnvToModulePipeline
from ray.rllib.connectors.module_to_env import ModuleToEnvPipeline
from ray.rllib.core.columns import Columns

from tdmpc_ray.observations import map_parts, parts_of, stack
from tdmpc_ray.rllib.acting.module import BEGINNING, IS_FIRST, TASK


class _Untimed:
    """Does not time each of its pieces at each step, as RLlib does: that takes a quarter of the step."""

    def __call__(self, *, metrics: Any = None, **kwargs: Any) -> Any:
        return super().__call__(metrics=None, **kwargs)  # type: ignore[misc]


class UntimedEnvToModule(_Untimed, EnvToModulePipeline):
    """RLlib's, without metrics."""


class UntimedModuleToEnv(_Untimed, ModuleToEnvPipeline):
    """RLlib's, without metrics."""


class ObservationTensor(ConnectorV2):
    """The newest observations as tensors (N, ...), instead of RLlib's five pieces for any nested space."""

    def __init__(self, *args: Any, device: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.device = device

    def __call__(self, *, batch: dict[str, Any], episodes: list[Any], **kwargs: Any) -> dict[str, Any]:
        newest = stack([episode.get_observations(-1) for episode in episodes])
        batch[Columns.OBS] = map_parts(self._tensor, newest)
        return batch

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        kind = torch.uint8 if array.dtype == np.uint8 else torch.float32  # images keep their bytes
        return torch.as_tensor(array, dtype=kind, device=self.device)


class ActionArrays(ConnectorV2):
    """The module's actions as they are to be stored, and as the environment takes them, (N, A) each.

    Args:
        normalize: scale them from [-1, 1] to the space's bounds, where it has some.
        clip: where they are not scaled, clip them to the bounds.
    """

    def __init__(self, *args: Any, normalize: bool, clip: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.normalize, self.clip = normalize, clip

    def __call__(self, *, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        space: Any = self.input_action_space
        actions = given = batch[Columns.ACTIONS].cpu().numpy()
        if self.normalize and space.is_bounded():
            given = np.clip(space.low + (given + 1.0) * (space.high - space.low) / 2.0, space.low, space.high)
        elif self.clip:
            given = np.clip(given, space.low, space.high)
        batch[Columns.ACTIONS] = actions
        batch[Columns.ACTIONS_FOR_ENV] = given.copy() if given is actions else given
        return batch


class AddIsFirst(ConnectorV2):
    """Marks environments that have just been reset, so that the planner forgets their last plan."""

    def __init__(self, *args: Any, device: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.device = device

    def __call__(self, *, batch: dict[str, Any], episodes: list[Any], **kwargs: Any) -> dict[str, Any]:
        # A fragment that continues an episode is empty too, but did not start at 0.
        is_first = [len(episode) == 0 and episode.t_started == 0 for episode in episodes]
        batch[IS_FIRST] = torch.tensor(is_first, device=self.device)
        batch[BEGINNING] = [e.id_ if first else None for e, first in zip(episodes, is_first, strict=True)]
        return batch


class AddTask(ConnectorV2):
    """Tells which task of a set each environment plays."""

    def __init__(self, *args: Any, device: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.device = device

    def __call__(self, *, batch: dict[str, Any], episodes: list[Any], **kwargs: Any) -> dict[str, Any]:
        batch[TASK] = torch.tensor(
            [episode.get_infos(-1)["task"] for episode in episodes], device=self.device
        )
        return batch


def env_to_module(config: Any, pipeline: Any, device: Any) -> UntimedEnvToModule:
    """The same pipeline as RLlib's, or a faster one where both ways are RLlib's own and the spaces plain."""
    spaces = (pipeline.input_observation_space, pipeline.input_action_space)
    pieces = [ObservationTensor(device=device)] if _is_plain(config, *spaces) else pipeline.connectors
    return UntimedEnvToModule(*spaces, connectors=pieces)


def module_to_env(config: Any, pipeline: Any) -> UntimedModuleToEnv:
    """The same pipeline as RLlib's, or a faster one where both ways are RLlib's own and the spaces plain."""
    spaces = (pipeline.input_observation_space, pipeline.input_action_space)
    pieces = pipeline.connectors
    if _is_plain(config, *spaces):
        pieces = [ActionArrays(normalize=config.normalize_actions, clip=config.clip_actions)]
    return UntimedModuleToEnv(*spaces, connectors=pieces)


def _is_plain(config: Any, observations: Any, actions: Any) -> bool:
    own = config._env_to_module_connector is None and config._module_to_env_connector is None
    default = (
        config.add_default_connectors_to_env_to_module_pipeline,
        config.add_default_connectors_to_module_to_env_pipeline,
    )
    spaces = (part for part in (*parts_of(observations), actions) if part is not None)
    are_boxes = all(isinstance(space, gymnasium.spaces.Box) for space in spaces)
    return own and all(default) and are_boxes and np.issubdtype(actions.dtype, np.floating)
