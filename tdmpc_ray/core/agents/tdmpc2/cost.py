"""What a model costs: floating-point operations per update and per plan.

A multiply-add counts as two operations. Only matrix products are counted: they are more than 95 % of the
work. A backward pass costs twice its forward pass, or once where only the input needs a gradient.
"""

from __future__ import annotations

from torch import nn

from tdmpc_ray.core.agents.tdmpc2.config import UpdateConfig
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.config import PlannerConfig
from tdmpc_ray.core.nn.pixels import PixelEncoder
from tdmpc_ray.core.planners.cost import ModelRows
from tdmpc_ray.core.planners.cost import plan_flops as planning_flops


def _mlp(in_dim: int, hidden: int, out_dim: int) -> int:
    """Operations of one row through an MLP with two hidden layers."""
    return 2 * (in_dim * hidden + hidden * hidden + hidden * out_dim)


def _encoder_layers(encoder: nn.Module) -> list[int]:
    """Operations of one observation in each layer."""
    sizes = encoder.sizes if isinstance(encoder, PixelEncoder) else []
    weights = [p.numel() for p in encoder.parameters() if p.dim() > 1]
    areas = [*(size**2 for size in sizes), *[1] * (len(weights) - len(sizes))]
    return [2 * weight * area for weight, area in zip(weights, areas, strict=True)]


class Rows:
    """Operations per row of each component's forward pass."""

    def __init__(self, model: WorldModel) -> None:
        cfg, a = model.cfg, model.action_dim
        z = cfg.latent_dim + (cfg.task_dim if model.num_tasks else 0)  # what the networks read
        encoders = [model.encoder, *([] if model.vector_encoder is None else [model.vector_encoder])]
        layers = [_encoder_layers(encoder) for encoder in encoders]
        self.encoder = sum(map(sum, layers))
        self.observation = sum(first for first, *_ in layers)  # needs no gradient of its own
        self.latent = 2 * z * cfg.mlp_dim  # a latent's part of a first layer
        self.dynamics = _mlp(z + a, cfg.mlp_dim, cfg.latent_dim)
        self.reward = _mlp(z + a, cfg.mlp_dim, cfg.num_bins)
        self.q = _mlp(z + a, cfg.mlp_dim, cfg.num_bins)  # one head
        self.pi = _mlp(z, cfg.mlp_dim, 2 * a)
        self.termination = _mlp(z, cfg.mlp_dim, 1) if cfg.episodic else 0


def update_flops(
    model: WorldModel, cfg: UpdateConfig, horizon: int, teacher: WorldModel | None = None
) -> int:
    """Operations of one gradient step."""
    rows, num_q = Rows(model), model.cfg.num_q
    targets = horizon * (rows.encoder + rows.pi + 2 * rows.q)
    learned = rows.encoder + horizon * (rows.dynamics + rows.reward + num_q * rows.q + rows.termination)
    # The policy learns on given latents: neither it nor the two heads send gradients there.
    policy = (horizon + 1) * (3 * rows.pi + 2 * 2 * rows.q - 3 * rows.latent)
    taught = 0
    if teacher is not None:
        theirs = Rows(teacher)
        taught = horizon * (theirs.encoder + theirs.reward + teacher.num_q * theirs.q)
    return cfg.batch_size * (targets + 3 * learned - rows.observation + policy + taught)


def plan_flops(model: WorldModel, cfg: PlannerConfig) -> int:
    """Operations of one decision of one environment; the published code needs half as many again."""
    rows = Rows(model)
    model_rows = ModelRows(
        encoder=rows.encoder,
        latent=rows.latent,
        step=rows.dynamics + rows.reward + rows.termination,
        dynamics=rows.dynamics,
        value=rows.pi + 2 * rows.q,
        policy=rows.pi,
    )
    return planning_flops(model_rows, cfg, model.action_dim)
