"""One decision in latent space, for many environments at once.

`contract.py` says what a planner takes and gives. MPPI and CEM are in `sampling.py`, descent along the
gradient of the model in `gradient.py`, acting by the policy prior alone is here. What they ask of the model
is in `functions.py`, its fast form for the CPU in `fused.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from tdmpc_ray.core.agents.tdmpc2.world_model import TaskContext, WorldModel
from tdmpc_ray.core.config import PlannerConfig
from tdmpc_ray.core.nn.precision import products_in
from tdmpc_ray.core.planners.contract import Plan, PlanNoise
from tdmpc_ray.core.planners.gradient import plan_by_gradient
from tdmpc_ray.core.planners.sampling import plan_by_sampling

__all__ = ["Plan", "PlanNoise", "plan"]


def plan(
    model: WorldModel,
    z: Tensor,
    prev_mean: Tensor,
    cfg: PlannerConfig,
    noise: PlanNoise,
    *,
    discount: float | Tensor,
    explore: bool,
    task: TaskContext | None = None,
) -> Plan:
    """Plan one action per environment by `cfg.method`.

    Args:
        z: latents, (N, Z).
        prev_mean: mean of the previous step's plan, (N, H, A) in [-1, 1]; zeros at an episode's start.
        noise: this plan's randomness.
        discount: per step; of each environment's task, (N,), with several.
        explore: add the plan's own noise to the chosen action.
        task: of each environment, for a multi-task model.

    Raises:
        ValueError: shapes that do not belong together.
    """
    _check(model, z, prev_mean, cfg, noise)
    if not isinstance(discount, Tensor):
        discount = z.new_full((len(z),), discount)
    discount = discount.to(z.device, torch.float32).expand(len(z)).unsqueeze(-1)
    # The previous plan is one step old, and nothing is known about its new last action.
    prev_mean = torch.cat([prev_mean[:, 1:], torch.zeros_like(prev_mean[:, :1])], 1)
    with _evaluating(model), products_in(cfg.dtype, z.device):
        return _METHODS[cfg.method](model, z, prev_mean, cfg, noise, discount, explore, task)


def _check(model: WorldModel, z: Tensor, prev_mean: Tensor, cfg: PlannerConfig, noise: PlanNoise) -> None:
    num_envs, plan_shape = len(z), (cfg.horizon, model.action_dim)
    shapes = {
        "prev_mean": (prev_mean.shape, (num_envs, *plan_shape)),
        "noise.explore": (noise.explore.shape, (num_envs, model.action_dim)),
        "noise.pi": (noise.pi.shape[:2] + noise.pi.shape[3:], (cfg.horizon, num_envs, model.action_dim)),
    }
    for name, (given, needed) in shapes.items():
        if tuple(given) != needed:
            raise ValueError(f"{name} has shape {tuple(given)} where a plan needs {needed}")


@contextlib.contextmanager
def _evaluating(model: WorldModel) -> Iterator[None]:
    """Without dropout, which belongs to updates."""
    if not model.training:  # as of one that only acts: walking its modules takes longer than its policy
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()


@torch.no_grad()
def act_by_policy(
    model: WorldModel,
    z: Tensor,
    prev_mean: Tensor,
    cfg: PlannerConfig,
    noise: PlanNoise,
    discount: Tensor,
    explore: bool,
    task: TaskContext | None,
) -> Plan:
    """A sample of the policy prior, or its mode; `std` is that before squashing. Plans nothing ahead."""
    centre, log_std = model.pi_gaussian(z, task)
    spread, mask = log_std.exp(), 1.0 if task is None else task.action_mask
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
