"""BMPC (Wang et al., ICLR 2025) behind the contract of all agents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmpc_ray.core import planners
from tdmpc_ray.core.agents.agent import Costs, Published
from tdmpc_ray.core.agents.bmpc.config import SETTINGS
from tdmpc_ray.core.agents.bmpc.cost import plan_flops, update_flops
from tdmpc_ray.core.agents.bmpc.functions import BMPCFunctions
from tdmpc_ray.core.agents.bmpc.networks import BMPCNetworks
from tdmpc_ray.core.agents.bmpc.official import read_published, to_official
from tdmpc_ray.core.agents.bmpc.reanalysis import reanalyze
from tdmpc_ray.core.agents.bmpc.update import Updater
from tdmpc_ray.core.agents.tdmpc2.agent import TDMPC2Agent
from tdmpc_ray.core.agents.tdmpc2.functions import evaluating
from tdmpc_ray.core.agents.tdmpc2.world_model import TaskContext
from tdmpc_ray.core.batch import Batch, observations
from tdmpc_ray.core.config import AgentConfig, PlannerConfig
from tdmpc_ray.core.planners import Plan, PlanNoise
from tdmpc_ray.errors import UserError


class BMPCAgent(TDMPC2Agent):
    """TD-MPC2's world model with values of states, and a policy that imitates the planner."""

    settings = SETTINGS
    network_type = BMPCNetworks
    updater_type = Updater

    def decide(
        self,
        networks: Any,
        z: Tensor,
        prev_mean: Tensor,
        cfg: PlannerConfig,
        noise: PlanNoise,
        *,
        discount: float | Tensor,
        explore: bool,
        task: TaskContext | None = None,
    ) -> Plan:
        functions = BMPCFunctions(networks, task)
        with evaluating(networks):
            return planners.plan(functions, z, prev_mean, cfg, noise, discount=discount, explore=explore)

    def costs(self, networks: Any, cfg: AgentConfig, teacher: Any = None) -> Costs:
        return Costs(plan_flops(networks, cfg.planner), update_flops(networks, cfg))

    def extra_dim(self, action_dim: int) -> int:
        return 2 * action_dim  # mean and standard deviation of the planner

    def extra_of(self, plan: Plan) -> Tensor:
        chosen = plan.mean[:, 0] if plan.chosen is None else plan.chosen
        return torch.cat([chosen, plan.std[:, 0]], -1)

    def extra_unplanned(self, actions: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(actions), torch.ones_like(actions)], -1)

    def reanalyze(
        self,
        networks: Any,
        batch: Batch,
        cfg: AgentConfig,
        update: int,
        generator: torch.Generator,
        discount: float | Tensor,
    ) -> Tensor | None:
        every, size = cfg.update.reanalyze_every, min(cfg.update.reanalyze_batch, batch.action.shape[1])
        if not every or update % every:
            return None
        planner = replace(cfg.planner, horizon=cfg.update.reanalyze_horizon)
        task = None
        if batch.task is not None:
            assert isinstance(discount, Tensor)
            task, discount = networks.task(batch.task[:size]), discount[batch.task[:size]]
        with torch.no_grad(), evaluating(networks):
            some = batch.first(size)
            z = networks.encode(observations(some, slice(0, -1)), task)
            noise = PlanNoise.sample(networks, planner, batch.horizon * size, generator)
            return reanalyze(networks, z, planner, noise, discount, task)

    def of_one_task(self, state: Mapping[str, Tensor], shares: Tensor, own: Any) -> dict[str, Tensor]:
        raise UserError("algorithm 'bmpc' makes no networks of one task of those of several")

    def model_error(self, networks: Any, batch: Batch, cfg: Any) -> Tensor:
        raise UserError("algorithm 'bmpc' makes no networks of one task of those of several")

    def read_published(self, path: Path) -> Published:
        return read_published(path)

    def to_published(self, networks: Any, **options: Any) -> dict[str, Any]:
        return {"model": to_official(networks, **options)}


AGENT = BMPCAgent()
