"""What a plan costs, by what its model costs."""

from __future__ import annotations

from typing import NamedTuple

from tdmpc_ray.core.config import PlannerConfig


class ModelRows(NamedTuple):
    """Floating-point operations per row of a model's forward passes.

    Attributes:
        encoder: of an observation.
        latent: what a latent adds to the first layers of those networks that a step runs, of each.
        step: all that a step of a candidate runs.
        dynamics: of that, the next latent.
        value: at the end of a candidate, the policy's action included.
        policy: the policy's action.
    """

    encoder: int
    latent: int
    step: int
    dynamics: int
    value: int
    policy: int


def plan_flops(rows: ModelRows, cfg: PlannerConfig, action_dim: int) -> int:
    """Operations of one decision of one environment, without those that are done in vain.

    Two heads value the candidates, the policy's trajectories are rolled out once, and what the first latent
    adds to the first layers is computed once for all candidates.
    """
    if cfg.method == "policy":
        return rows.encoder + rows.policy
    candidate = cfg.horizon * rows.step
    prior = cfg.num_pi_trajs * (cfg.horizon * rows.policy + (cfg.horizon - 1) * rows.dynamics)
    if cfg.method == "gradient":
        learned = (cfg.num_pi_trajs + 1) * (candidate + rows.value)
        return rows.encoder + prior + (2 * cfg.gradient_steps + 1) * learned

    def rolled_out(num: int) -> int:
        return num * candidate - 2 * (num - 1) * rows.latent if num else 0

    iteration = rolled_out(cfg.num_samples - cfg.num_pi_trajs) + cfg.num_samples * rows.value
    prior += rolled_out(cfg.num_pi_trajs)
    return rows.encoder + prior + cfg.num_iterations(action_dim) * iteration
