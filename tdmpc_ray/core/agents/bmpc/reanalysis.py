"""Planning again, with the networks of today, at steps that were taken long ago."""

from __future__ import annotations

import torch
from torch import Tensor

from tdmpc_ray.core import planners
from tdmpc_ray.core.agents.bmpc.functions import BMPCFunctions
from tdmpc_ray.core.agents.bmpc.networks import BMPCNetworks
from tdmpc_ray.core.agents.tdmpc2.world_model import TaskContext
from tdmpc_ray.core.config import PlannerConfig
from tdmpc_ray.core.planners import PlanNoise

LOG_STD_RANGE = (-2.0, 1.0)  # of the policy's proposals, wider than where it acts


@torch.no_grad()
def reanalyze(
    networks: BMPCNetworks,
    z: Tensor,
    cfg: PlannerConfig,
    noise: PlanNoise,
    discount: float | Tensor,
    task: TaskContext | None = None,
) -> Tensor:
    """The planner's Gaussians of steps, without what was planned before them.

    Args:
        z: encoded latents of the steps, (T, B, Z).
        cfg: section `planner`.
        noise: of T * B environments, steps first.
        discount: per step; of each sequence's task, (B,), with several.
        task: of each sequence (B, ...), with several.

    Returns:
        The first action of the elite that was drawn, and the final spread, (T, B, 2 A).
    """
    steps, size = z.shape[:2]
    if isinstance(discount, Tensor) and discount.ndim:
        discount = discount.expand(steps, size).flatten()
    if task is not None:
        task = TaskContext(*(x.expand(steps, *x.shape).flatten(0, 1) for x in task))
    functions = BMPCFunctions(networks, task, LOG_STD_RANGE)
    z = z.flatten(0, 1)
    cold = z.new_zeros(len(z), cfg.horizon, networks.action_dim)
    plan = planners.plan(functions, z, cold, cfg, noise, discount=discount, explore=False)
    return torch.cat([plan.action, plan.std[:, 0]], -1).view(steps, size, -1)
