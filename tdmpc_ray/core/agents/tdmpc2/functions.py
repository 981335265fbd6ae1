"""What a plan asks of the model, in PyTorch; `fused.FusedModel` has the same methods for the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from tdmpc_ray.core.agents.tdmpc2.world_model import TaskContext, WorldModel


class ModelFunctions:
    """Rollouts and values of candidates.

    Args:
        model: the world model.
        task: of each environment (N, ...), for a multi-task model.
    """

    def __init__(self, model: WorldModel, task: TaskContext | None = None) -> None:
        self._model = model
        self._task = None if task is None else TaskContext(*(x.unsqueeze(1) for x in task))  # (N, 1, ...)

    def rollout(self, z: Tensor, actions: Tensor, discount: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Roll action sequences through the model.

        Args:
            z: latents of the first step, (N, Z).
            actions: S candidates per latent, (H, N, S, A).
            discount: per step, (N, 1).

        Returns:
            Discounted sum of predicted rewards (N, S), the last latents (N, S, Z), and the weight of what
            follows (N, S): discount**H, or 0 where the model predicts that the task has ended before.
        """
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
        """Mean of two heads at a policy action: latents (N, S, Z), noise (N, S, A) to values (N, S)."""
        action = self._model.pi(z, eps, self._task).action
        return self._model.q(z, action, heads, self._task).mean(0).squeeze(-1)

    def policy_rollout(self, z: Tensor, eps: Tensor) -> Tensor:
        """Actions of the policy prior along its own trajectories: (N, Z), (H, N, P, A) -> (H, N, P, A)."""
        model, task = self._model, self._task
        z = z.unsqueeze(1)
        actions = []
        for t, eps_t in enumerate(eps):
            actions.append(model.pi(z, eps_t, task).action)
            if t + 1 < len(eps):
                z = model.next(z, actions[-1], task)
        return torch.stack(actions)
