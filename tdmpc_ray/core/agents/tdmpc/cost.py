"""What networks of TD-MPC cost: floating-point operations per update and per plan, as of TD-MPC2."""

from __future__ import annotations

from torch import nn

from tdmpc_ray.core.agents.tdmpc.config import UpdateConfig
from tdmpc_ray.core.agents.tdmpc.networks import TDMPCNetworks
from tdmpc_ray.core.config import PlannerConfig


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
    """Operations of one decision of one environment, without those that are done in vain."""
    rows = _Rows(networks)
    if cfg.method == "policy":
        return rows.encoder + rows.pi
    candidate = cfg.horizon * (rows.dynamics + rows.reward)
    value = rows.pi + 2 * rows.q
    prior = cfg.num_pi_trajs * (cfg.horizon * rows.pi + (cfg.horizon - 1) * rows.dynamics)
    if cfg.method == "gradient":
        learned = (cfg.num_pi_trajs + 1) * (candidate + value)
        return rows.encoder + prior + (2 * cfg.gradient_steps + 1) * learned

    def rolled_out(num: int) -> int:
        return num * candidate - 2 * (num - 1) * rows.latent if num else 0

    iteration = rolled_out(cfg.num_samples - cfg.num_pi_trajs) + cfg.num_samples * value
    prior += rolled_out(cfg.num_pi_trajs)
    return rows.encoder + prior + cfg.num_iterations(networks.action_dim) * iteration
