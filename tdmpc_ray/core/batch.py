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
        weight: importance of each sequence in the losses of the world model, (B,); None where all count 1.
        start: the rows of the replay where the sequences begin, always on the CPU: (B,), or fewer where the
            last ones come from elsewhere; None where unknown.
        largest_weight: what the weights of these were divided by, also on the CPU: (); None where all
            count 1.
        mask: 1.0 where a step happened, as the first ones always did, and 0.0 behind the end of a sequence,
            where its last observation is repeated, (H, B, 1); None where all happened.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    task: Tensor | None = None
    weight: Tensor | None = None
    start: Tensor | None = None
    largest_weight: Tensor | None = None
    mask: Tensor | None = None

    @property
    def horizon(self) -> int:
        return self.action.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """Copy to `device`, without waiting for a GPU."""

        def copy(x: Tensor) -> Tensor:
            if torch.device(device).type == "cuda" and x.device.type == "cpu":
                x = x.pin_memory()  # from other memory the copy would wait
            return x.to(device, non_blocking=True)

        optional = (self.task, self.weight, self.mask)
        task, weight, mask = (None if x is None else copy(x) for x in optional)
        tensors = (copy(self.obs), copy(self.action), copy(self.reward), copy(self.terminated))
        return Batch(*tensors, task, weight, self.start, self.largest_weight, mask)

    def followed_by(self, other: Batch) -> Batch:
        """Both in one batch; sequences of `other` count 1 where these have weights, and lose their rows."""
        pairs = zip(self[:4], other[:4], strict=True)
        obs, action, reward, terminated = (torch.cat([x, y], 1) for x, y in pairs if x is not None)
        task = weight = mask = None
        if self.task is not None and other.task is not None:
            task = torch.cat([self.task, other.task])
        if self.weight is not None:
            weight = torch.cat([self.weight, torch.ones(other.action.shape[1])])
        if self.mask is not None and other.mask is not None:
            mask = torch.cat([self.mask, other.mask], 1)
        return Batch(obs, action, reward, terminated, task, weight, self.start, self.largest_weight, mask)
