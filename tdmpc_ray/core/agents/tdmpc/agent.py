"""TD-MPC (Hansen et al., 2022) behind the contract of all agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmpc_ray.core import planners
from tdmpc_ray.core.agents.agent import Agent, Costs, Published
from tdmpc_ray.core.agents.tdmpc.config import SETTINGS, ModelConfig, UpdateConfig
from tdmpc_ray.core.agents.tdmpc.cost import plan_flops, update_flops
from tdmpc_ray.core.agents.tdmpc.functions import LatentFunctions
from tdmpc_ray.core.agents.tdmpc.networks import TDMPCNetworks
from tdmpc_ray.core.agents.tdmpc.official import read_published, to_official
from tdmpc_ray.core.agents.tdmpc.update import UpdateNoise, Updater, make_optimizers
from tdmpc_ray.core.batch import Observation
from tdmpc_ray.core.config import AgentConfig, PlannerConfig
from tdmpc_ray.core.parallel import Replicas
from tdmpc_ray.core.planners import Plan, PlanNoise
from tdmpc_ray.errors import UserError


class TDMPCAgent(Agent):
    """A task-oriented latent dynamics model, planning by sampling, and a deterministic policy."""

    settings = SETTINGS

    def make_networks(
        self,
        obs_shape: Sequence[int],
        action_dim: int,
        cfg: ModelConfig,
        *,
        action_dims: Sequence[int] | None = None,
        vector_dim: int = 0,
        learns: bool = True,
    ) -> TDMPCNetworks:
        if action_dims is not None:
            raise UserError("TD-MPC learns one task: use algorithm tdmpc2 for a set of tasks")
        if vector_dim:
            raise UserError("TD-MPC observes images or a vector: use algorithm tdmpc2 for both at once")
        return TDMPCNetworks(obs_shape, action_dim, cfg, target=learns)

    def encode(
        self, networks: TDMPCNetworks, obs: Observation, task: Any = None, shift: Tensor | None = None
    ) -> Tensor:
        return networks.encode(obs, shift)

    def decide(
        self,
        networks: TDMPCNetworks,
        z: Tensor,
        prev_mean: Tensor,
        cfg: PlannerConfig,
        noise: PlanNoise,
        *,
        discount: float | Tensor,
        explore: bool,
        task: Any = None,
    ) -> Plan:
        functions = LatentFunctions(networks.online, networks.action_dim, networks.cfg.policy_std)
        return planners.plan(functions, z, prev_mean, cfg, noise, discount=discount, explore=explore)

    def policy_mean(self, networks: TDMPCNetworks, z: Tensor, task: Any = None) -> Tensor:
        return networks.online.policy_mean(z)

    def make_optimizers(self, networks: TDMPCNetworks, cfg: UpdateConfig) -> dict[str, torch.optim.Optimizer]:
        return make_optimizers(networks, cfg)

    def make_updater(
        self,
        networks: TDMPCNetworks,
        cfg: UpdateConfig,
        discount: float | Sequence[float],
        optimizers: Mapping[str, torch.optim.Optimizer],
        replicas: Replicas | None,
    ) -> Updater:
        assert isinstance(discount, float)  # of the one task
        return Updater(networks, cfg, discount, optimizers, replicas)

    def draw_update(
        self,
        networks: TDMPCNetworks,
        horizon: int,
        batch_size: int,
        generator: torch.Generator,
        heads_generator: torch.Generator | None = None,
    ) -> UpdateNoise:
        return UpdateNoise.sample(networks, horizon, batch_size, generator)

    def costs(self, networks: TDMPCNetworks, cfg: AgentConfig, teacher: None = None) -> Costs:
        learning = update_flops(networks, cfg.update, cfg.planner.horizon)
        return Costs(per_plan=plan_flops(networks, cfg.planner), per_update=learning)

    def read_published(self, path: Path) -> Published:
        return read_published(path)

    def to_published(self, networks: TDMPCNetworks, **options: Any) -> dict[str, Any]:
        if options.get("flat"):
            raise UserError("the published TD-MPC has one layout alone: leave --flat out")
        return to_official(networks)


AGENT = TDMPCAgent()
