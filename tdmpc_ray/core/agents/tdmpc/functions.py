"""What a plan asks of the model."""

from __future__ import annotations

import torch
from torch import Tensor

from tdmpc_ray.core.agents.tdmpc.networks import LatentModel


class LatentFunctions:
    """`planners.ModelFunctions` of a latent model.

    Args:
        model: the online one.
        action_dim: A.
        std: of the policy's actions, see `ModelConfig.policy_std`.
    """

    action_mask: Tensor | None = None

    def __init__(self, model: LatentModel, action_dim: int, std: float) -> None:
        self._model, self.action_dim, self._std = model, action_dim, std

    def rollout(self, z: Tensor, actions: Tensor, discount: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `ModelFunctions`; no task ends."""
        z = z.unsqueeze(1)  # (N, 1, Z): one latent for all candidates, until they part
        total = torch.zeros(actions.shape[1:3], device=z.device)
        weight = torch.ones_like(discount)
        for action in actions:
            total = total + weight * self._model.predict_reward(z, action).squeeze(-1)
            z = self._model.next(z, action)
            weight = weight * discount
        return total, z, weight.expand_as(total)

    def terminal_value(self, z: Tensor, eps: Tensor, heads: Tensor) -> Tensor:
        """See `ModelFunctions`; the smaller one of both heads."""
        action = self._model.pi(z, self._std, eps)
        return self._model.values(z, action).amin(0).squeeze(-1)

    def policy_rollout(self, z: Tensor, eps: Tensor) -> Tensor:
        """See `ModelFunctions`."""
        z = z.unsqueeze(1)
        actions: list[Tensor] = []
        for t, eps_t in enumerate(eps):
            if t == 0:
                z = z.expand(-1, eps_t.shape[1], -1)
            actions.append(self._model.pi(z, self._std, eps_t))
            if t + 1 < len(eps):
                z = self._model.next(z, actions[-1])
        return torch.stack(actions)

    def policy(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """See `ModelFunctions`; the policy's own noise comes behind the squashing, this one before it."""
        mean = self._model.policy(z).float()
        return mean, torch.full_like(mean, self._std).log()
