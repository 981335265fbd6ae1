"""What networks of TD-MPC cost: floating-point operations per update and per plan, as of TD-MPC2."""

from __future__ import annotations

from torch import nn

from tdmpc_ray.core.agents.tdmpc.config import UpdateConfig
from tdmpc_ray.core.agents.tdmpc.networks import TDMPCNetworks
from tdmpc_ray.core.config import PlannerConfig
from tdmpc_ray.core.planners.cost import ModelRows
from tdmpc_ray.core.planners.cost import plan_flops as planning_flops


class _Rows:
    """Operations per row of each network's forward pass; a multiply-add counts as two."""

    def __init__(self, networks: TDMPCNetworks) -> None:
        model, cfg, a = networks.online, networks.cfg, networks.action_dim
        self.encoder, self.observation, size = 0, 0, networks.obs_shape[-1]
        for layer in model.encoder:
            if isinstance(layer, nn.Conv2d):
                size = (size - layer.kernel_size[0]) // 2 + 1
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                area = size**2 if isinstance(layer, nn.Conv2d) else 1
                self.encoder += 2 * layer.weight.numel() * area
                self.observation = self.observation or self.encoder  # needs no gradient of its own
        hidden, z = cfg.mlp_dim, cfg.latent_dim
        self.latent = 2 * z * hidden  # a latent's part of a first layer
        first = 2 * (z + a) * hidden + 2 * hidden * hidden
        self.dynamics, self.reward, self.q = first + 2 * hidden * z, first + 2 * hidden, first + 2 * hidden
        self.pi = 2 * z * hidden + 2 * hidden * hidden + 2 * hidden * a


def update_flops(networks: TDMPCNetworks, cfg: UpdateConfig, horizon: int) -> int:
    """Operations of one gradient step."""
    rows = _Rows(networks)
    targets = horizon * (2 * rows.encoder + rows.pi + 2 * rows.q)
    learned = rows.encoder + horizon * (rows.dynamics + rows.reward + 2 * rows.q)
    policy = (horizon + 1) * (3 * rows.pi + 2 * 2 * rows.q - 3 * rows.latent)
    return cfg.batch_size * (targets + 3 * learned - rows.observation + policy)


def plan_flops(networks: TDMPCNetworks, cfg: PlannerConfig) -> int:
    """Operations of one decision of one environment."""
    rows = _Rows(networks)
    model_rows = ModelRows(
        encoder=rows.encoder,
        latent=rows.latent,
        step=rows.dynamics + rows.reward,
        dynamics=rows.dynamics,
        value=rows.pi + 2 * rows.q,
        policy=rows.pi,
    )
    return planning_flops(model_rows, cfg, networks.action_dim)
