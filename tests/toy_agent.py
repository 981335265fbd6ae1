"""An agent in one short file: a linear policy that leans towards actions that were followed by much reward.

Nothing outside of this file knows of it; docs/architecture.md takes it as its example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tdmpc_ray.core.agent_settings import AgentSettings
from tdmpc_ray.core.agents.agent import Agent, Costs, Networks
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import AgentConfig, ModelSettings, UpdateSettings
from tdmpc_ray.core.planners import Plan, PlanNoise


@dataclass(frozen=True)
class ToyModel(ModelSettings):
    std: float = 0.3  # of the noise on actions that explore


@dataclass(frozen=True)
class ToyUpdate(UpdateSettings):
    lr: float = 1e-2

    def discount(self, episode_length: int) -> float:
        return 0.97


class ToyNetworks(Networks):
    def __init__(self, obs_dim: int, action_dim: int, cfg: ToyModel) -> None:
        super().__init__()
        self.obs_shape, self.action_dim, self.std = (obs_dim,), action_dim, cfg.std
        self.policy = nn.Linear(obs_dim, action_dim)
        nn.init.zeros_(self.policy.weight)


class ToyUpdater:
    td_error = None

    def __init__(self, networks: ToyNetworks, optimizer: torch.optim.Optimizer) -> None:
        self.networks, self.optimizer = networks, optimizer
        self.num_steps = torch.zeros(())

    def step(self, batch: Batch, noise: None) -> dict[str, Tensor]:
        weight = torch.softmax(batch.reward.sum(0) / batch.reward.std().clamp(min=1e-3), 0)  # (B, 1)
        error = torch.tanh(self.networks.policy(batch.obs[0])) - batch.action[0]
        loss = (weight * error.square()).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.num_steps += 1
        return {"loss/total": loss.detach(), "skipped": torch.zeros(())}

    def state(self) -> dict[str, Tensor]:
        return {"num_steps": self.num_steps}


class ToyAgent(Agent):
    settings = AgentSettings(
        "toy_agent:AGENT", ToyModel, ToyUpdate, {"tiny": ToyModel()}, {"paper": {"planner.method": "policy"}}
    )

    def make_networks(
        self, obs_shape: Sequence[int], action_dim: int, cfg: ToyModel, **kwargs: Any
    ) -> ToyNetworks:
        return ToyNetworks(obs_shape[0], action_dim, cfg)

    def encode(self, networks: ToyNetworks, obs: Any, task: Any = None, shift: Any = None) -> Tensor:
        return obs

    def decide(
        self,
        networks: ToyNetworks,
        z: Tensor,
        prev_mean: Tensor,
        cfg: Any,
        noise: PlanNoise,
        *,
        discount: float | Tensor,
        explore: bool,
        task: Any = None,
    ) -> Plan:
        mean, std = torch.zeros_like(prev_mean), torch.full_like(prev_mean, networks.std)
        mean[:, 0] = self.policy_mean(networks, z)
        action = mean[:, 0] + (noise.explore * networks.std if explore else 0.0)
        return Plan(action.clamp(-1, 1), mean, std, z.new_empty(len(z), 0))

    def policy_mean(self, networks: ToyNetworks, z: Tensor, task: Any = None) -> Tensor:
        return torch.tanh(networks.policy(z))

    def make_optimizers(self, networks: ToyNetworks, cfg: ToyUpdate) -> dict[str, torch.optim.Optimizer]:
        return {"policy": torch.optim.Adam(networks.parameters(), lr=cfg.lr)}

    def make_updater(
        self,
        networks: ToyNetworks,
        cfg: ToyUpdate,
        discount: float | Sequence[float],
        optimizers: Mapping[str, torch.optim.Optimizer],
        replicas: Any,
    ) -> ToyUpdater:
        return ToyUpdater(networks, optimizers["policy"])

    def draw_update(self, *args: Any, **kwargs: Any) -> None:
        return None

    def costs(self, networks: ToyNetworks, cfg: AgentConfig, teacher: None = None) -> Costs:
        weights = networks.policy.weight.numel()
        return Costs(per_plan=2 * weights, per_update=6 * weights * cfg.update.batch_size)


AGENT = ToyAgent()
