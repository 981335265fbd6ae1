"""The one index convention of the project.

Time is the first axis. `obs[t]` is what the agent saw before it took `action[t]`; `reward[t]` and
`terminated[t]` are what the environment answered to `action[t]`, together with `obs[t + 1]`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """B sequences of H transitions.

    Attributes:
        obs: observations, (H + 1, B, O) or (H + 1, B, C, 64, 64).
        action: actions in [-1, 1], (H, B, A).
        reward: rewards, (H, B, 1).
        terminated: 1.0 where the task itself ended with this step (never for a time limit), (H, B, 1).
        task: ids of the tasks that the sequences come from, (B,); None for a single-task model.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    task: Tensor | None = None

    @property
    def horizon(self) -> int:
        return self.action.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """Copy to `device`, without waiting for a GPU."""

        def copy(x: Tensor) -> Tensor:
            if torch.device(device).type == "cuda" and x.device.type == "cpu":
                x = x.pin_memory()  # from other memory the copy would wait
            return x.to(device, non_blocking=True)

        task = None if self.task is None else copy(self.task)
        return Batch(copy(self.obs), copy(self.action), copy(self.reward), copy(self.terminated), task)
