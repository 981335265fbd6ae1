"""TD-MPC2's networks with values of states, and a policy that imitates the planner (BMPC, ICLR 2025)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tdmpc_ray.core.agents.tdmpc2.world_model import TaskContext, WorldModel
from tdmpc_ray.core.nn.math import PolicySample, clamped_gaussian


class BMPCNetworks(WorldModel):
    """A `WorldModel` whose value heads read latents alone, V(z), and whose policy's mean is squashed.

    Sizes as of `WorldModel`. A sample of the policy is its mean and noise, clamped to the bounds of actions:
    a Gaussian as the planner's own, which it is drawn towards.
    """

    values_actions: ClassVar[bool] = False

    def values(
        self, z: Tensor, heads: Tensor, task: TaskContext | None = None, *, target: bool = False
    ) -> Tensor:
        """Values of latents (..., Z) by the chosen heads, (J, ..., 1)."""
        return self.scalar(self.q_logits(z, z.new_empty(0), heads, task, target=target))

    def pi(self, z: Tensor, eps: Tensor, task: TaskContext | None = None) -> PolicySample:
        """Sample the policy with standard-normal noise `eps` (..., A)."""
        return clamped_gaussian(*self.pi_gaussian(z, task), eps, None if task is None else task.action_mask)

    def propose(
        self, z: Tensor, eps: Tensor, log_std_range: tuple[float, float], task: TaskContext | None = None
    ) -> Tensor:
        """Actions by the policy's mean and a spread of another range, as for reanalysis, (..., A)."""
        mean, log_std = self.pi_gaussian(z, task)
        low, high = log_std_range
        share = (log_std - self.cfg.log_std_min) / (self.cfg.log_std_max - self.cfg.log_std_min)
        mask = None if task is None else task.action_mask
        return clamped_gaussian(mean, low + share * (high - low), eps, mask).action

    def pi_gaussian(self, z: Tensor, task: TaskContext | None = None) -> tuple[Tensor, Tensor]:
        """Mean, squashed to the bounds of actions, and log standard deviation, (..., A) each."""
        mean, log_std = super().pi_gaussian(z, task)
        return torch.tanh(mean), log_std
