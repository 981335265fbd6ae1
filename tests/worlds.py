"""World models for planners: a small one that tells candidates apart, and one with a known optimum."""

from __future__ import annotations

import torch

from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.config import PlannerConfig, agent_config
from tdmpc_ray.core.nn.math import PolicySample

SETTINGS = {"planner.num_samples": 32, "planner.num_elites": 8, "planner.num_pi_trajs": 4}


def redraw(model: WorldModel, seed: int) -> WorldModel:
    """Draw the weights as no version of PyTorch does otherwise: its truncated normal numbers have changed."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        for x in model.parameters():
            if x.dim() > 1 and x.requires_grad and x.any():
                x.copy_(torch.randn(x.shape, generator=generator) * 0.02)
    if model.target_q is not None:
        model.target_q.load_state_dict(model.q_ensemble.state_dict())
    return model


def world(action_dims: list[int] | None = None, **settings: object) -> tuple[WorldModel, PlannerConfig]:
    """A model whose values differ from candidate to candidate, as an untrained one's do not."""
    agent = agent_config("tiny", overrides={**SETTINGS, **settings})
    torch.manual_seed(0)
    model = WorldModel((5,), 2, agent.model, action_dims=action_dims).eval()
    with torch.no_grad():
        for head in (model.reward_head[-1], model.q_ensemble.layers[-1]):
            head.weight.normal_(std=0.3)
    return model, agent.planner


class Quadratic(WorldModel):
    """A known world: z is the state itself, z' = z + a, and the reward is -|z - goal|^2 - 0.1 |a|^2."""

    def __init__(self, goal: torch.Tensor) -> None:
        super().__init__((2,), 2, agent_config("tiny").model)
        self.goal = goal

    def next(self, z: torch.Tensor, action: torch.Tensor, task: None = None) -> torch.Tensor:
        return z + action

    def reward(self, z: torch.Tensor, action: torch.Tensor, task: None = None) -> torch.Tensor:
        return -(z - self.goal).square().sum(-1, keepdim=True) - 0.1 * action.square().sum(-1, keepdim=True)

    def pi(self, z: torch.Tensor, eps: torch.Tensor, task: None = None) -> PolicySample:
        """A policy that knows nothing."""
        zero = torch.zeros_like(eps[..., :1])
        return PolicySample(torch.tanh(eps), torch.zeros_like(eps), torch.zeros_like(eps), zero, zero)

    def q(self, z: torch.Tensor, action: torch.Tensor, heads: torch.Tensor, *_: None) -> torch.Tensor:
        """As far as the state is from the goal at the end of the plan."""
        return -(z - self.goal).square().sum(-1, keepdim=True).expand(2, *z.shape[:-1], 1)
