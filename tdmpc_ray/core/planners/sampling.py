"""Planning by sampling: MPPI (TD-MPC2, section 3.2), and CEM."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from tdmpc_ray.core.config import PlannerConfig
from tdmpc_ray.core.nn.compiled import Compiled, begin_step, compiles
from tdmpc_ray.core.planners.contract import ModelFunctions, Plan, PlanNoise

_compiled = functools.cache(Compiled)


@torch.no_grad()
def plan_by_sampling(
    functions: ModelFunctions,
    z: Tensor,
    prev_mean: Tensor,
    cfg: PlannerConfig,
    noise: PlanNoise,
    discount: Tensor,
    explore: bool,
) -> Plan:
    """Refine a Gaussian over action sequences towards its best samples; arguments as of `planners.plan`.

    MPPI weighs the elites by their values, forgets the old mean and executes one of the elites. CEM takes the
    plain mean of the elites, moves there with momentum, and executes the mean.
    """
    compiled = compiles(cfg.compile, z.device)
    if compiled:
        begin_step(z.device)
    propose, refine = (_compiled(_propose), _compiled(_refine)) if compiled else (_propose, _refine)
    mask = functions.action_mask

    prior = propose(functions, z, noise.pi, discount)
    # Copied, so that its strides are those of the means that follow: others would be compiled for anew.
    mean = prev_mean.transpose(0, 1).unsqueeze(2).clone(memory_format=torch.contiguous_format)  # (H, N, 1, A)
    std = torch.full_like(mean, cfg.max_std)
    for eps, value_eps, heads in zip(noise.candidates, noise.value_pi, noise.heads, strict=True):
        mean, std, elites, score, values = refine(
            functions, z, mean, std, prior, cfg, eps, value_eps, heads, discount, mask
        )

    action = mean[0, :, 0]
    if cfg.method == "mppi":
        chosen = (torch.log(score) + noise.gumbel).argmax(1)  # (N,)
        action = elites[0, torch.arange(len(z), device=z.device), chosen]
    if explore:
        action = action + std[0, :, 0] * noise.explore
    mean, std = (x.squeeze(2).transpose(0, 1) for x in (mean, std))
    if compiled:  # the next plan overwrites what this one's graphs gave out
        mean, std, values = mean.clone(), std.clone(), values.clone()
    return Plan(action.clamp(-1, 1), mean, std, values)


class _Prior(NamedTuple):
    """The policy's trajectories: candidates in every iteration, so that they are rolled out only once."""

    actions: Tensor  # (H, N, P, A)
    total: Tensor  # discounted rewards, (N, P)
    last_z: Tensor  # (N, P, Z)
    weight: Tensor  # of what follows, (N, P)


def _propose(functions: ModelFunctions, z: Tensor, eps: Tensor, discount: Tensor) -> _Prior:
    actions = functions.policy_rollout(z, eps)
    return _Prior(actions, *functions.rollout(z, actions, discount))


def _refine(
    functions: ModelFunctions,
    z: Tensor,
    mean: Tensor,
    std: Tensor,
    prior: _Prior,
    cfg: PlannerConfig,
    eps: Tensor,
    value_eps: Tensor,
    heads: Tensor,
    discount: Tensor,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One iteration.

    Returns:
        The new mean and std, (H, N, 1, A); the elites (H, N, E, A), their weights and their values (N, E).
    """
    sampled = (mean + std * eps).clamp(-1, 1)
    if mask is not None:
        sampled = sampled * mask
    total, last_z, weight = functions.rollout(z, sampled, discount)
    last_z = torch.cat([prior.last_z, last_z], 1)
    value = torch.cat([prior.total, total], 1)
    value = value + torch.cat([prior.weight, weight], 1) * functions.terminal_value(last_z, value_eps, heads)

    elite_value, index = value.nan_to_num(0.0).topk(cfg.num_elites, dim=1)  # (N, E)
    index = index[None, :, :, None].expand(cfg.horizon, -1, -1, sampled.shape[-1])
    elites = torch.cat([prior.actions, sampled], 2).gather(2, index)
    weighted = cfg.method == "mppi"
    score = torch.softmax((cfg.temperature if weighted else 0.0) * elite_value, 1)
    share = score[None, :, :, None]
    elite_mean = (share * elites).sum(2, keepdim=True)
    variance = (share * (elites - elite_mean).square()).sum(2, keepdim=True)
    mean = elite_mean if weighted else torch.lerp(elite_mean, mean, cfg.momentum)
    std = variance.sqrt().clamp(cfg.min_std, cfg.max_std)
    return mean, std if mask is None else std * mask, elites, score, elite_value
