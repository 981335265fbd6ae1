"""What BMPC costs: floating-point operations per update, with its share of reanalysis, and per plan."""

from __future__ import annotations

from dataclasses import replace

from tdmpc_ray.core.agents.bmpc.networks import BMPCNetworks
from tdmpc_ray.core.agents.tdmpc2.cost import Rows
from tdmpc_ray.core.config import AgentConfig, PlannerConfig
from tdmpc_ray.core.planners.cost import ModelRows
from tdmpc_ray.core.planners.cost import plan_flops as planning_flops


def update_flops(networks: BMPCNetworks, cfg: AgentConfig) -> int:
    """Operations of one gradient step, and of the plans that are made anew for it on average."""
    rows, horizon, update = Rows(networks), cfg.planner.horizon, cfg.update
    imagined = rows.pi + rows.dynamics + rows.reward + 2 * rows.q + rows.termination
    targets = horizon * (rows.encoder + imagined) + rows.encoder
    learned = rows.encoder + horizon * (
        rows.dynamics + rows.reward + networks.num_q * rows.q + rows.termination
    )
    policy = horizon * (3 * rows.pi - rows.latent)
    step = update.batch_size * (targets + 3 * learned - rows.observation + policy)
    if not update.reanalyze_every:
        return step
    planner = replace(cfg.planner, horizon=update.reanalyze_horizon)
    anew = min(update.reanalyze_batch, update.batch_size) * horizon * plan_flops(networks, planner)
    return step + anew // update.reanalyze_every


def plan_flops(networks: BMPCNetworks, cfg: PlannerConfig) -> int:
    """Operations of one decision of one environment."""
    rows = Rows(networks)
    model_rows = ModelRows(
        encoder=rows.encoder,
        latent=rows.latent,
        step=rows.dynamics + rows.reward + rows.termination,
        dynamics=rows.dynamics,
        value=2 * rows.q,
        policy=rows.pi,
    )
    return planning_flops(model_rows, cfg, networks.action_dim)
