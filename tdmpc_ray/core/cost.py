"""What a model costs: floating-point operations per update and per plan.

A multiply-add counts as two operations. Only matrix products are counted: they are more than 95 % of the
work. A backward pass costs twice its forward pass, or once where only the input needs a gradient.
"""

from __future__ import annotations

from tdmpc_ray.core.config import PlannerConfig, UpdateConfig
from tdmpc_ray.core.world_model import WorldModel


def _mlp(in_dim: int, hidden: int, out_dim: int) -> int:
    """Operations of one row through an MLP with two hidden layers."""
    return 2 * (in_dim * hidden + hidden * hidden + hidden * out_dim)


class _Rows:
    """Operations per row of each component's forward pass."""

    def __init__(self, model: WorldModel) -> None:
        cfg, z, a = model.cfg, model.cfg.latent_dim, model.action_dim
        layers = max(cfg.num_enc_layers - 1, 1)
        self.encoder = 2 * cfg.enc_dim * (model.obs_dim + (layers - 1) * cfg.enc_dim + z)
        self.dynamics = _mlp(z + a, cfg.mlp_dim, z)
        self.reward = _mlp(z + a, cfg.mlp_dim, cfg.num_bins)
        self.q = _mlp(z + a, cfg.mlp_dim, cfg.num_bins)  # one head
        self.pi = _mlp(z, cfg.mlp_dim, 2 * a)
        self.termination = _mlp(z, cfg.mlp_dim, 1) if cfg.episodic else 0


def update_flops(model: WorldModel, cfg: UpdateConfig, horizon: int) -> int:
    """Operations of one gradient step."""
    rows, num_q = _Rows(model), model.cfg.num_q
    targets = horizon * (rows.encoder + rows.pi + 2 * rows.q)
    learned = rows.encoder + horizon * (rows.dynamics + rows.reward + num_q * rows.q + rows.termination)
    policy = (horizon + 1) * (3 * rows.pi + 2 * 2 * rows.q)
    return cfg.batch_size * (targets + 3 * learned + policy)


def plan_flops(model: WorldModel, cfg: PlannerConfig) -> int:
    """Operations of one decision of one environment, as published: every candidate rolled out in every
    iteration, two heads evaluated."""
    rows = _Rows(model)
    if not cfg.enabled:
        return rows.encoder + rows.pi
    step = rows.dynamics + rows.reward + rows.termination
    candidate = cfg.horizon * step + rows.pi + 2 * rows.q
    prior = cfg.num_pi_trajs * (cfg.horizon * rows.pi + (cfg.horizon - 1) * rows.dynamics)
    return rows.encoder + prior + cfg.num_iterations(model.action_dim) * cfg.num_samples * candidate
