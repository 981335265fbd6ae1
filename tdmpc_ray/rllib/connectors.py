"""What the planner needs to know beside the observation."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2

from tdmpc_ray.rllib.module import BEGINNING, IS_FIRST, TASK


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
