"""What a plan asks of the model, in PyTorch; `fused.FusedModel` has the same for the CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from tdmpc_ray.core import planners
from tdmpc_ray.core.agents.tdmpc2.fused import fused_model
from tdmpc_ray.core.agents.tdmpc2.world_model import TaskContext, WorldModel
from tdmpc_ray.core.config import PlannerConfig
from tdmpc_ray.core.nn.compiled import compiles
from tdmpc_ray.core.planners import Plan, PlanNoise


def plan(
    model: WorldModel,
    z: Tensor,
    prev_mean: Tensor,
    cfg: PlannerConfig,
    noise: PlanNoise,
    *,
    discount: float | Tensor,
    explore: bool,
    task: TaskContext | None = None,
) -> Plan:
    """Plan one action per environment; `planners.plan` with the fastest functions of the model.

    Args:
        task: of each environment, for a multi-task model.
    """
    fused = None
    if cfg.method in ("mppi", "cem") and not compiles(cfg.compile, z.device):
        fused = fused_model(model, task, cfg.dtype)
    functions = fused or TorchFunctions(model, task)
    with evaluating(model):
        return planners.plan(functions, z, prev_mean, cfg, noise, discount=discount, explore=explore)


@contextlib.contextmanager
def evaluating(model: WorldModel) -> Iterator[None]:
    """Without dropout, which belongs to updates."""
    if not model.training:  # as of one that only acts: walking its modules takes longer than its policy
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()


class TorchFunctions:
    """`planners.ModelFunctions` of a world model.

    Args:
        model: the world model.
        task: of each environment (N, ...), for a multi-task model.
    """

    def __init__(self, model: WorldModel, task: TaskContext | None = None) -> None:
        self._model, self._alone = model, task
        self._task = None if task is None else TaskContext(*(x.unsqueeze(1) for x in task))  # (N, 1, ...)
        self.action_dim = model.action_dim
        self.action_mask = None if self._task is None else self._task.action_mask

    def rollout(self, z: Tensor, actions: Tensor, discount: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `ModelFunctions`."""
        model, task = self._model, self._task
        z = z.unsqueeze(1)  # (N, 1, Z): one latent for all candidates, until they part
        total = torch.zeros(actions.shape[1:3], device=z.device)
        weight = torch.ones_like(total)
        for action in actions:
            total = total + weight * model.reward(z, action, task).squeeze(-1)
            z = model.next(z, action, task)
            weight = weight * discount
            if model.termination_head is not None:
                weight = weight * (model.termination_logit(z, task).squeeze(-1) <= 0)
        return total, z, weight

    def terminal_value(self, z: Tensor, eps: Tensor, heads: Tensor) -> Tensor:
        """See `ModelFunctions`; the mean of the two heads."""
        action = self._model.pi(z, eps, self._task).action
        return self._model.q(z, action, heads, self._task).mean(0).squeeze(-1)

    def policy_rollout(self, z: Tensor, eps: Tensor) -> Tensor:
        """See `ModelFunctions`."""
        model, task = self._model, self._task
        z = z.unsqueeze(1)
        actions = []
        for t, eps_t in enumerate(eps):
            actions.append(model.pi(z, eps_t, task).action)
            if t + 1 < len(eps):
                z = model.next(z, actions[-1], task)
        return torch.stack(actions)

    def policy(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """See `ModelFunctions`."""
        return self._model.pi_gaussian(z, self._alone)
