"""Planning along the gradient of the model: a few action sequences, improved by Adam."""

from __future__ import annotations

import torch
from torch import Tensor

from tdmpc_ray.core.config import PlannerConfig
from tdmpc_ray.core.planners.contract import ModelFunctions, Plan, PlanNoise

_EDGE = 0.999  # actions at the bounds have no gradient through tanh


def plan_by_gradient(
    functions: ModelFunctions,
    z: Tensor,
    prev_mean: Tensor,
    cfg: PlannerConfig,
    noise: PlanNoise,
    discount: Tensor,
    explore: bool,
) -> Plan:
    """Improve the last plan and some policy trajectories; execute the best; arguments as of `planners.plan`.

    The std is that of the candidates, which tells how much they disagree.
    """
    mask = 1.0 if functions.action_mask is None else functions.action_mask
    with torch.no_grad():
        start = torch.cat([prev_mean.transpose(0, 1).unsqueeze(2), functions.policy_rollout(z, noise.pi)], 2)
    raw = torch.atanh(start.clamp(-_EDGE, _EDGE)).requires_grad_()  # (H, N, P + 1, A)
    optimizer = torch.optim.Adam([raw], lr=cfg.gradient_lr)

    def value_of(actions: Tensor, step: int) -> Tensor:
        total, last_z, weight = functions.rollout(z, actions, discount)
        value_eps, heads = noise.value_pi[step], noise.heads[step]
        return total + weight * functions.terminal_value(last_z, value_eps, heads)  # (N, P + 1)

    with torch.enable_grad():
        for step in range(cfg.gradient_steps):
            loss = -value_of(torch.tanh(raw) * mask, step).sum()
            (raw.grad,) = torch.autograd.grad(loss, [raw])
            optimizer.step()

    with torch.no_grad():
        actions = torch.tanh(raw) * mask
        value, best = value_of(actions, cfg.gradient_steps).nan_to_num(0.0).max(1)  # (N,)
        mean = actions[:, torch.arange(len(z), device=z.device), best].transpose(0, 1)  # (N, H, A)
        std = actions.std(2, correction=0).transpose(0, 1).clamp(cfg.min_std, cfg.max_std) * mask
        action = mean[:, 0]
        if explore:
            action = action + std[:, 0] * noise.explore
        return Plan(action.clamp(-1, 1), mean, std, value.unsqueeze(1))
