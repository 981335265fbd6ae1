"""Planning by sampling: MPPI (TD-MPC2, section 3.2), and CEM."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

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

    MPPI weighs the elites by their values and executes one of them. CEM takes their plain mean, and executes
    that. Both move to the new mean with momentum; TD-MPC2's MPPI has none.
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
    numbers = _Numbers(cfg.temperature, cfg.min_std, cfg.max_std, cfg.kept_of_mean)
    if compiled:  # as tensors: numbers that follow a schedule would be compiled for anew
        numbers = _Numbers(*(z.new_tensor(number, dtype=torch.float32) for number in numbers))
    weighted = cfg.method == "mppi"
    for eps, value_eps, heads in zip(noise.candidates, noise.value_pi, noise.heads, strict=True):
        mean, std, elites, score, values = refine(
            functions,
            z,
            mean,
            std,
            prior,
            weighted,
            cfg.num_elites,
            numbers,
            eps,
            value_eps,
            heads,
            discount,
            mask,
        )

    action = mean[0, :, 0]
    if cfg.method == "mppi":
        chosen = (torch.log(score) + noise.gumbel).argmax(1)  # (N,)
        action = elites[0, torch.arange(len(z), device=z.device), chosen]
    before = action
    if explore:
        action = action + std[0, :, 0] * noise.explore
    mean, std = (x.squeeze(2).transpose(0, 1) for x in (mean, std))
    if compiled:  # the next plan overwrites what this one's graphs gave out
        mean, std, values = mean.clone(), std.clone(), values.clone()
    return Plan(action.clamp(-1, 1), mean, std, values, before)


class _Numbers(NamedTuple):
    """Settings of an iteration, see `PlannerConfig`; floats, or tensors ()."""

    temperature: Any
    min_std: Any
    max_std: Any
    kept_of_mean: Any


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
    weighted: bool,
    num_elites: int,
    numbers: _Numbers,
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

    elite_value, index = value.nan_to_num(0.0).topk(num_elites, dim=1)  # (N, E)
    index = index[None, :, :, None].expand(len(sampled), -1, -1, sampled.shape[-1])
    elites = torch.cat([prior.actions, sampled], 2).gather(2, index)
    score = torch.softmax((numbers.temperature if weighted else 0.0) * elite_value, 1)
    share = score[None, :, :, None]
    elite_mean = (share * elites).sum(2, keepdim=True)
    variance = (share * (elites - elite_mean).square()).sum(2, keepdim=True)
    mean = torch.lerp(elite_mean, mean, numbers.kept_of_mean)
    std = variance.sqrt().clamp(numbers.min_std, numbers.max_std)
    return mean, std if mask is None else std * mask, elites, score, elite_value
