"""TD-MPC2 (Hansen et al., 2024) behind the contract of all agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from tdmpc_ray.core.agents.agent import Agent, Costs, Networks, Published
from tdmpc_ray.core.agents.tdmpc2.config import SETTINGS, ModelConfig, UpdateConfig
from tdmpc_ray.core.agents.tdmpc2.cost import plan_flops, update_flops
from tdmpc_ray.core.agents.tdmpc2.functions import plan
from tdmpc_ray.core.agents.tdmpc2.losses import world_model_loss
from tdmpc_ray.core.agents.tdmpc2.official import read_published, to_official
from tdmpc_ray.core.agents.tdmpc2.one_task import of_one_task, of_tasks
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater, make_optimizers
from tdmpc_ray.core.agents.tdmpc2.world_model import TaskContext, WorldModel
from tdmpc_ray.core.batch import Batch, Observation, observations
from tdmpc_ray.core.config import AgentConfig, PlannerConfig
from tdmpc_ray.core.parallel import Replicas
from tdmpc_ray.core.planners import Plan, PlanNoise
from tdmpc_ray.errors import UserError


class TDMPC2Agent(Agent):
    """A world model of latents, planning by sampling, and a policy prior."""

    settings = SETTINGS
    network_type: ClassVar[type[WorldModel]] = WorldModel
    updater_type: ClassVar[type[Updater]] = Updater

    def make_networks(
        self,
        obs_shape: Sequence[int],
        action_dim: int,
        cfg: ModelConfig,
        *,
        action_dims: Sequence[int] | None = None,
        vector_dim: int = 0,
        learns: bool = True,
    ) -> WorldModel:
        return self.network_type(
            obs_shape, action_dim, cfg, action_dims=action_dims, target=learns, vector_dim=vector_dim
        )

    def encode(
        self,
        networks: WorldModel,
        obs: Observation,
        task: TaskContext | None = None,
        shift: Tensor | None = None,
    ) -> Tensor:
        return networks.encode(obs, task, shift)

    def decide(
        self,
        networks: WorldModel,
        z: Tensor,
        prev_mean: Tensor,
        cfg: PlannerConfig,
        noise: PlanNoise,
        *,
        discount: float | Tensor,
        explore: bool,
        task: TaskContext | None = None,
    ) -> Plan:
        return plan(networks, z, prev_mean, cfg, noise, discount=discount, explore=explore, task=task)

    def policy_mean(self, networks: WorldModel, z: Tensor, task: TaskContext | None = None) -> Tensor:
        eps = torch.zeros(len(z), networks.action_dim, device=z.device)
        return networks.pi(z, eps, task).mean

    def make_optimizers(self, networks: WorldModel, cfg: UpdateConfig) -> dict[str, torch.optim.Optimizer]:
        world, pi = make_optimizers(networks, cfg)
        return {"world": world, "pi": pi}

    def make_updater(
        self,
        networks: WorldModel,
        cfg: UpdateConfig,
        discount: float | Sequence[float],
        optimizers: Mapping[str, torch.optim.Optimizer],
        replicas: Replicas | None,
    ) -> Updater:
        return self.updater_type(networks, cfg, discount, (optimizers["world"], optimizers["pi"]), replicas)

    def draw_update(
        self,
        networks: WorldModel,
        horizon: int,
        batch_size: int,
        generator: torch.Generator,
        heads_generator: torch.Generator | None = None,
    ) -> UpdateNoise:
        return UpdateNoise.sample(networks, horizon, batch_size, generator, heads_generator)

    def costs(self, networks: WorldModel, cfg: AgentConfig, teacher: WorldModel | None = None) -> Costs:
        learning = update_flops(networks, cfg.update, cfg.planner.horizon, teacher)
        return Costs(per_plan=plan_flops(networks, cfg.planner), per_update=learning)

    def of_one_task(self, state: Mapping[str, Tensor], shares: Tensor, own: Networks) -> dict[str, Tensor]:
        if len(own.obs_shape) > 1:
            raise UserError("networks of one task are made of those of several for vectors, not for images")
        return of_one_task(state, shares, own.obs_shape[0], own.action_dim)

    def of_tasks(self, state: Mapping[str, Tensor], shares: Tensor) -> dict[str, Tensor]:
        return of_tasks(state, shares)

    @torch.no_grad()
    def model_error(self, networks: WorldModel, batch: Batch, cfg: UpdateConfig) -> Tensor:
        next_z, values = networks.encode(observations(batch, slice(1, None))), torch.zeros_like(batch.reward)
        loss = world_model_loss(networks, batch, next_z, values, cfg)
        return cfg.consistency_coef * loss.consistency + cfg.reward_coef * loss.reward

    def read_published(self, path: Path) -> Published:
        return read_published(path)

    def to_published(self, networks: WorldModel, **options: Any) -> dict[str, Any]:
        return {"model": to_official(networks, **options)}


AGENT = TDMPC2Agent()
