"""One decision in latent space, for many environments at once.

`contract.py` says what a planner takes and gives, and what it asks of a model. MPPI and CEM are in
`sampling.py`, descent along the gradient of the model in `gradient.py`; acting by the policy prior is here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc_ray.core.config import PlannerConfig
from tdmpc_ray.core.nn.precision import products_in
from tdmpc_ray.core.planners.contract import ModelFunctions, Plan, PlanNoise
from tdmpc_ray.core.planners.gradient import plan_by_gradient
from tdmpc_ray.core.planners.sampling import plan_by_sampling

__all__ = ["ModelFunctions", "Plan", "PlanNoise", "plan"]


def plan(
    functions: ModelFunctions,
    z: Tensor,
    prev_mean: Tensor,
    cfg: PlannerConfig,
    noise: PlanNoise,
    *,
    discount: float | Tensor,
    explore: bool,
) -> Plan:
    """Plan one action per environment by `cfg.method`.

    Args:
        functions: of the model; by gradient, such as PyTorch can differentiate.
        z: latents, (N, Z).
        prev_mean: mean of the previous step's plan, (N, H, A) in [-1, 1]; zeros at an episode's start. Where
            H is more than `cfg.horizon`, which may grow in a run, zeros fill up what the plan gives.
        noise: this plan's randomness.
        discount: per step; of each environment's task, (N,), with several.
        explore: add the plan's own noise to the chosen action.

    Raises:
        ValueError: shapes that do not belong together.
    """
    _check(functions.action_dim, z, prev_mean, cfg, noise)
    if not isinstance(discount, Tensor):
        discount = z.new_full((len(z),), discount)
    discount = discount.to(z.device, torch.float32).expand(len(z)).unsqueeze(-1)
    # The previous plan is one step old, and nothing is known about its new last action.
    known, later = prev_mean[:, 1 : cfg.horizon], prev_mean.shape[1] - cfg.horizon
    prev_mean = F.pad(known, (0, 0, 0, cfg.horizon - known.shape[1]))
    with products_in(cfg.dtype, z.device):
        found = _METHODS[cfg.method](functions, z, prev_mean, cfg, noise, discount, explore)
    if not later:
        return found
    return found._replace(mean=F.pad(found.mean, (0, 0, 0, later)), std=F.pad(found.std, (0, 0, 0, later)))


def _check(action_dim: int, z: Tensor, prev_mean: Tensor, cfg: PlannerConfig, noise: PlanNoise) -> None:
    num_envs, plan_shape = len(z), (cfg.horizon, action_dim)
    shapes = {
        "prev_mean": (prev_mean[:, : cfg.horizon].shape, (num_envs, *plan_shape)),
        "noise.explore": (noise.explore.shape, (num_envs, action_dim)),
        "noise.pi": (noise.pi.shape[:2] + noise.pi.shape[3:], (cfg.horizon, num_envs, action_dim)),
    }
    for name, (given, needed) in shapes.items():
        if tuple(given) != needed:
            raise ValueError(f"{name} has shape {tuple(given)} where a plan needs {needed}")


@torch.no_grad()
def act_by_policy(
    functions: ModelFunctions,
    z: Tensor,
    prev_mean: Tensor,
    cfg: PlannerConfig,
    noise: PlanNoise,
    discount: Tensor,
    explore: bool,
) -> Plan:
    """A sample of the policy prior, or its mode; `std` is that before squashing. Plans nothing ahead."""
    centre, log_std = functions.policy(z)
    spread, mask = log_std.exp(), 1.0 if functions.action_mask is None else functions.action_mask.squeeze(1)
    mean, std = torch.zeros_like(prev_mean), torch.zeros_like(prev_mean)
    mean[:, 0] = torch.tanh(centre) * mask
    std[:, 0] = spread * mask
    action = torch.tanh(centre + noise.explore * spread) * mask if explore else mean[:, 0]
    return Plan(action, mean, std, z.new_empty(len(z), 0))


_METHODS = {
    "mppi": plan_by_sampling,
    "cem": plan_by_sampling,
    "gradient": plan_by_gradient,
    "policy": act_by_policy,
}
