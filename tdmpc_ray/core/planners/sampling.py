"""Planning by sampling: MPPI (TD-MPC2, section 3.2), and CEM."""

from __future__ import annotations

import torch
from torch import Tensor

from tdmpc_ray.core.config import PlannerConfig
from tdmpc_ray.core.planners.contract import Plan, PlanNoise
from tdmpc_ray.core.planners.functions import ModelFunctions
from tdmpc_ray.core.planners.fused import fused_model
from tdmpc_ray.core.world_model import TaskContext, WorldModel


@torch.no_grad()
def plan_by_sampling(
    model: WorldModel,
    z: Tensor,
    prev_mean: Tensor,
    cfg: PlannerConfig,
    noise: PlanNoise,
    discount: Tensor,
    explore: bool,
    task: TaskContext | None,
) -> Plan:
    """Refine a Gaussian over action sequences towards its best samples; arguments as of `planners.plan`.

    MPPI weighs the elites by their values, forgets the old mean and executes one of the elites. CEM takes the
    plain mean of the elites, moves there with momentum, and executes the mean.
    """
    fused = fused_model(model, task) if cfg.dtype == "fp32" else None
    functions = fused or ModelFunctions(model, task)
    mask = None if task is None else task.action_mask.unsqueeze(1)  # (N, 1, A)
    weighted = cfg.method == "mppi"
    # Policy trajectories stay candidates in every iteration: their rewards are computed only once.
    pi_actions = functions.policy_rollout(z, noise.pi)
    pi_total, pi_z, pi_weight = functions.rollout(z, pi_actions, discount)

    mean = prev_mean.transpose(0, 1).unsqueeze(2)  # (H, N, 1, A)
    std = torch.full_like(mean, cfg.max_std)
    for eps, value_eps, heads in zip(noise.candidates, noise.value_pi, noise.heads, strict=True):
        sampled = (mean + std * eps).clamp(-1, 1)
        if mask is not None:
            sampled = sampled * mask
        total, last_z, weight = functions.rollout(z, sampled, discount)
        last_z = torch.cat([pi_z, last_z], 1)
        value = torch.cat([pi_total, total], 1)
        value = value + torch.cat([pi_weight, weight], 1) * functions.terminal_value(last_z, value_eps, heads)

        elite_value, elite = value.nan_to_num(0.0).topk(cfg.num_elites, dim=1)  # (N, E)
        index = elite[None, :, :, None].expand(cfg.horizon, -1, -1, model.action_dim)
        elite_actions = torch.cat([pi_actions, sampled], 2).gather(2, index)  # (H, N, E, A)
        temperature = cfg.temperature if weighted else 0.0
        score = torch.softmax(temperature * elite_value, 1)[None, :, :, None]
        elite_mean = (score * elite_actions).sum(2, keepdim=True)
        variance = (score * (elite_actions - elite_mean).square()).sum(2, keepdim=True)
        mean = elite_mean if weighted else torch.lerp(elite_mean, mean, cfg.momentum)
        std = variance.sqrt().clamp(cfg.min_std, cfg.max_std)
        if mask is not None:
            std = std * mask

    action = mean[0, :, 0]
    if weighted:
        chosen = (torch.log(score[0, :, :, 0]) + noise.gumbel).argmax(1)  # (N,)
        action = elite_actions[0, torch.arange(len(z), device=z.device), chosen]
    if explore:
        action = action + std[0, :, 0] * noise.explore
    return Plan(action.clamp(-1, 1), *(x.squeeze(2).transpose(0, 1) for x in (mean, std)))
