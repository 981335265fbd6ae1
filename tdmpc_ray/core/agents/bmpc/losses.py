"""The losses of BMPC (Wang et al., ICLR 2025) where they are not TD-MPC2's."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tdmpc_ray.core.agents.bmpc.networks import BMPCNetworks
from tdmpc_ray.core.agents.tdmpc2.config import UpdateConfig
from tdmpc_ray.core.agents.tdmpc2.losses import PolicyLoss, mean_of_real, running_scale
from tdmpc_ray.core.agents.tdmpc2.world_model import TaskContext


@torch.no_grad()
def imagined_target(
    networks: BMPCNetworks,
    z: Tensor,
    discount: float | Tensor,
    eps: Tensor,
    heads: Tensor,
    task: TaskContext | None = None,
) -> Tensor:
    """Targets of values, one step ahead in imagination: the policy's action and the model's reward.

    Where the model foresees that the step ends the task, nothing follows (derived: the published code knows
    no terminations).

    Args:
        z: encoded latents of the steps that values are learned at, (..., Z).
        discount: per step; of each sequence's task, (B, 1), with several.
        eps: standard-normal noise of the policy action, (..., A).
        heads: the two target heads whose mean counts, (2,).

    Returns:
        (..., 1).
    """
    action = networks.pi(z, eps, task).action
    next_z = networks.next(z, action, task)
    value = networks.values(next_z, heads, task, target=True).mean(0)
    if networks.termination_head is not None:
        value = value * (networks.termination_logit(next_z, task) <= 0)
    return networks.reward(z, action, task) + discount * value


class PlannerGaussian(NamedTuple):
    """What the planner made of each step, (H, B, A) each; mean 0 and standard deviation 1 without a plan."""

    mean: Tensor
    std: Tensor


def divergence(mean: Tensor, log_std: Tensor, planned: PlannerGaussian, mask: Tensor | None = None) -> Tensor:
    """KL divergence of the policy's Gaussian from the planner's, mean over an action's numbers, (..., 1).

    Args:
        mean: of the policy, (..., A).
        log_std: likewise.
        planned: the planner's.
        mask: 1.0 for the numbers that the task's action has, (..., A).
    """
    spread = planned.std if mask is None else torch.where(mask > 0, planned.std, 1.0)  # 0 where none acts
    variance = spread.square()
    parts = spread.log() - log_std
    parts = parts + (log_std.exp().square() + (mean - planned.mean).square()) / (2 * variance) - 0.5
    if mask is None:
        return parts.mean(-1, keepdim=True)
    return (parts * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)


def imitation_loss(
    networks: BMPCNetworks,
    zs: Tensor,
    planned: PlannerGaussian,
    scale: Tensor,
    cfg: UpdateConfig,
    eps: Tensor,
    task: TaskContext | None = None,
    mask: Tensor | None = None,
) -> PolicyLoss:
    """The policy's distance from the planner along the rollout, with an entropy bonus.

    Args:
        zs: latents without gradient, of the steps that were acted in, (H, B, Z).
        planned: of these steps.
        scale: the running scale before this loss, (); moved by the divergence of the first step.
        eps: standard-normal noise, (H, B, A).
        mask: see `Batch.mask`.
    """
    if mask is not None:  # what stands behind the end of a sequence is nobody's plan
        planned = planned._replace(std=torch.where(mask > 0, planned.std, 1.0))
    sample = networks.pi(zs, eps, task)
    kl = divergence(sample.mean, sample.log_std, planned, None if task is None else task.action_mask)
    scale = running_scale(scale, kl[0].detach(), cfg.tau)
    objective = kl / scale - cfg.entropy_coef * sample.scaled_entropy
    if mask is not None:
        objective = objective * mask
    rho = cfg.rho ** torch.arange(len(kl), device=kl.device) / len(kl)
    return PolicyLoss(
        (rho * objective.mean((1, 2))).sum(),
        mean_of_real(sample.entropy.detach(), mask),
        mean_of_real(sample.scaled_entropy.detach(), mask),
        scale,
        kl.new_zeros(()),
    )
