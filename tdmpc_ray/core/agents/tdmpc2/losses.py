"""The losses of one update (TD-MPC2, equations 3 and 4). They know no optimizer, logger or Ray."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc_ray.core.agents.tdmpc2.config import UpdateConfig
from tdmpc_ray.core.agents.tdmpc2.world_model import TaskContext, WorldModel
from tdmpc_ray.core.batch import Batch, observations


@torch.no_grad()
def td_target(
    model: WorldModel,
    next_z: Tensor,
    reward: Tensor,
    terminated: Tensor,
    discount: float | Tensor,
    eps: Tensor,
    heads: Tensor,
    task: TaskContext | None = None,
) -> Tensor:
    """One-step TD target; bootstraps unless the task itself ended.

    Args:
        next_z: encoded (not predicted) next latents, (..., Z).
        reward: (..., 1).
        terminated: (..., 1).
        discount: per step; of each sequence's task, (B, 1), with several.
        eps: standard-normal noise of the policy action, (..., A).
        heads: the two target heads whose minimum counts, (2,).

    Returns:
        (..., 1).
    """
    action = model.pi(next_z, eps, task).action
    value = model.q(next_z, action, heads, task, target=True).amin(0)
    return reward + discount * (1 - terminated) * value


class Targets(NamedTuple):
    """What an update learns towards, without gradient.

    Attributes:
        next_z: encoded latents of the steps 1 to H, (H, B, Z).
        target: TD targets, (H, B, 1).
        mean: of the targets, ().
        targets_clipped: share of the targets that lie outside of the bins, ().
        rewards_clipped: likewise, of the rewards.
    """

    next_z: Tensor
    target: Tensor
    mean: Tensor
    targets_clipped: Tensor
    rewards_clipped: Tensor


def mean_of_real(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over the steps that happened; `x` and the mask have one shape."""
    return x.mean() if mask is None else (x * mask).sum() / mask.sum()


class WorldModelLoss(NamedTuple):
    """Terms of the world-model loss (scalars), and the rollout that they were computed on.

    Only `total` has gradients.
    """

    total: Tensor
    consistency: Tensor
    reward: Tensor
    value: Tensor
    termination: Tensor
    zs: Tensor  # predicted latents z_0..z_H, (H + 1, B, Z)
    td_error: Tensor | None  # absolute, mean over the sequence as the losses weigh it, (B,); if weighted
    taught: Tensor  # distance to a teacher's predictions, weighed; 0 where there is none


class Taught(NamedTuple):
    """What a teacher predicts from what was really seen, each (H, B, 1)."""

    reward: Tensor
    value: Tensor


@torch.no_grad()
def teach(teacher: WorldModel, batch: Batch) -> Taught:
    """Predictions of a teacher for the steps of a batch."""
    task = teacher.task(batch.task)
    z = teacher.encode(observations(batch, slice(0, -1)), task)
    heads = torch.arange(teacher.num_q, device=z.device)
    return Taught(teacher.reward(z, batch.action, task), teacher.q(z, batch.action, heads, task).mean(0))


def world_model_loss(
    model: WorldModel,
    batch: Batch,
    next_z: Tensor,
    target: Tensor,
    cfg: UpdateConfig,
    task: TaskContext | None = None,
    shift: Tensor | None = None,
    taught: Taught | None = None,
) -> WorldModelLoss:
    """Joint loss of encoder, dynamics, reward, values and termination along a latent rollout.

    Each sequence counts by `batch.weight` and each step by `batch.mask`, where there are such. The divisors
    are those of whole sequences, so that a step weighs as much in a short one as in any other.

    Args:
        next_z: encoded latents of obs[1..H], without gradient, (H, B, Z).
        target: TD targets, (H, B, 1).
        shift: of the first step's images, (B, 2).
        taught: further targets of rewards and values.
    """
    horizon = len(batch.action)  # PyTorch before 2.11 traces no property of a tuple
    zs = [model.encode(observations(batch, 0), task, shift)]
    for action_t in batch.action:
        zs.append(model.next(zs[-1], action_t, task))
    rollout = torch.stack(zs)  # (H + 1, B, Z)
    rho = cfg.rho ** torch.arange(horizon, device=rollout.device) / horizon  # (H,)

    weight, mask = batch.weight, batch.mask

    def over_time(loss: Tensor) -> Tensor:  # (H, B, ...) -> ()
        if mask is not None:
            loss = loss * mask
        if weight is not None:
            loss = loss.flatten(2).mean(2) * weight
        return (rho * loss.flatten(1).mean(1)).sum()  # a product would run in bfloat16 under autocast

    consistency = over_time((rollout[1:].float() - next_z.float()).square())
    reward_logits = model.reward_logits(rollout[:-1], batch.action, task)
    reward = over_time(model.scalar_loss(reward_logits, batch.reward))
    q_logits = model.q_logits(rollout[:-1], batch.action, task=task)  # (num_q, H, B, K)
    value = over_time(model.scalar_loss(q_logits, target).mean(0))
    termination = torch.zeros_like(value)
    if model.termination_head is not None:
        counts = mask if weight is None else weight.unsqueeze(-1) * (1.0 if mask is None else mask)
        termination = F.binary_cross_entropy_with_logits(
            model.termination_logit(rollout[1:], task), batch.terminated, weight=counts
        )
    td_error = None
    if weight is not None:
        with torch.no_grad():
            error = (model.scalar(q_logits).mean(0) - target).abs().squeeze(-1)  # (H, B)
            shares = rho.unsqueeze(-1) if mask is None else rho.unsqueeze(-1) * mask.squeeze(-1)
            td_error = (shares * error).sum(0) / shares.sum(0)
    distance = torch.zeros_like(value)
    if taught is not None:
        distance = cfg.teacher_reward_coef * over_time(model.scalar_loss(reward_logits, taught.reward))
        if cfg.teacher_value_coef:
            values = over_time(model.scalar_loss(q_logits, taught.value).mean(0))
            distance = distance + cfg.teacher_value_coef * values
    total = (
        cfg.consistency_coef * consistency
        + cfg.reward_coef * reward
        + cfg.value_coef * value
        + cfg.termination_coef * termination
        + distance
    )
    terms = (consistency, reward, value, termination, rollout)
    consistency, reward, value, termination, rollout = (x.detach() for x in terms)
    return WorldModelLoss(
        total, consistency, reward, value, termination, rollout, td_error, distance.detach()
    )


class PolicyLoss(NamedTuple):
    """The policy loss and what it was made of (scalars)."""

    total: Tensor
    entropy: Tensor
    scaled_entropy: Tensor
    scale: Tensor  # the running scale after this loss
    bc: Tensor  # squared distance to the data's actions; 0 where `bc_coef` is


def policy_loss(
    model: WorldModel,
    zs: Tensor,
    scale: Tensor,
    cfg: UpdateConfig,
    eps: Tensor,
    heads: Tensor,
    task: TaskContext | None = None,
    mask: Tensor | None = None,
    action: Tensor | None = None,
) -> PolicyLoss:
    """Maximum-entropy loss of the policy prior on the latents of the rollout.

    Args:
        zs: latents without gradient, (H + 1, B, Z).
        scale: the running scale before this loss, (); moved by the values of the first step, it divides all.
        eps: standard-normal noise, (H + 1, B, A).
        heads: the two online heads whose mean counts, (2,).
        mask: see `Batch.mask`.
        action: of the data, (H, B, A), to stay near with `bc_coef`; None: nowhere.
    """
    values = policy_values(model, zs, eps, heads, task, action)
    return scaled_policy_loss(values, running_scale(scale, values.q[0].detach(), cfg.tau), cfg, mask)


class PolicyValues(NamedTuple):
    """What the policy's actions along a rollout are worth, each (H + 1, B, 1)."""

    q: Tensor
    scaled_entropy: Tensor
    entropy: Tensor  # without gradient
    bc: Tensor | None = None  # squared distance to the data's actions, mean over the task's own, (H, B, 1)


def policy_values(
    model: WorldModel,
    zs: Tensor,
    eps: Tensor,
    heads: Tensor,
    task: TaskContext | None = None,
    action: Tensor | None = None,
) -> PolicyValues:
    """The part of `policy_loss` before the scale; arguments as there."""
    sample = model.pi(zs, eps, task)
    q = model.q(zs, sample.action, heads, task, detach=True).mean(0)
    bc = None
    if action is not None:
        error = (sample.mean[:-1].float() - action).square()
        counts = torch.ones_like(error) if task is None else task.action_mask.expand_as(error)
        bc = (error * counts).sum(-1, keepdim=True) / counts.sum(-1, keepdim=True)
    return PolicyValues(q, sample.scaled_entropy, sample.entropy.detach(), bc)


def scaled_policy_loss(
    values: PolicyValues, scale: Tensor, cfg: UpdateConfig, mask: Tensor | None = None
) -> PolicyLoss:
    """The part of `policy_loss` after the scale, ().

    It counts where the agent acted, and, as published, in the last state of a whole sequence, though that may
    be a terminal one; not in that of a short one, where nothing says what an action is worth.
    """
    q, scaled_entropy = values.q, values.scaled_entropy
    objective = q / scale + cfg.entropy_coef * scaled_entropy
    rho = cfg.rho ** torch.arange(len(q), device=q.device) / len(q)
    distance = q.new_zeros(())
    if values.bc is not None:
        near = values.bc if mask is None else values.bc * mask
        distance = (rho[:-1] * near.mean((1, 2))).sum()
    if mask is not None:
        mask = torch.cat([mask, mask[-1:]])  # (H + 1, B, 1)
        objective = objective * mask
    return PolicyLoss(
        cfg.bc_coef * distance - (rho * objective.mean((1, 2))).sum(),
        mean_of_real(values.entropy, mask),
        mean_of_real(scaled_entropy.detach(), mask),
        scale,
        distance.detach(),
    )


def running_scale(scale: Tensor, q: Tensor, tau: float) -> Tensor:
    """Move a scale () towards the distance between the 5th and the 95th percentile of `q`, at least 1."""
    ordered = q.flatten().sort().values
    return torch.lerp(scale, (_percentile(ordered, 0.95) - _percentile(ordered, 0.05)).clamp(min=1.0), tau)


def _percentile(ordered: Tensor, share: float) -> Tensor:
    """As `torch.quantile`, which copies its shares to the device and so waits for it."""
    position = share * (len(ordered) - 1)
    below = int(position)
    return torch.lerp(ordered[below], ordered[min(below + 1, len(ordered) - 1)], position - below)
