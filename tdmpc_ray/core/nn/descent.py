"""A step of an optimizer that leaves everything alone where something is not finite."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tdmpc_ray.core.parallel import Replicas


class Descent:
    """Steps one optimizer.

    Args:
        optimizer: a fused one, of PyTorch.
        params: that it changes.
        clip_norm: the most that the gradient's norm may be.
        replicas: with whom to take each step, where this is one of several.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        params: Sequence[nn.Parameter],
        clip_norm: float,
        replicas: Replicas | None,
    ) -> None:
        self._optimizer, self._params, self._clip_norm = optimizer, list(params), clip_norm
        self._replicas = replicas

    def step(self, loss: Tensor, skipped: Tensor) -> tuple[Tensor, Tensor]:
        """Step, unless `skipped` is 1.0 or something is not finite.

        Returns:
            The gradient's norm before clipping; 1.0 where no step was taken.
        """
        if not loss.requires_grad:  # none of the parameters is to learn
            return torch.zeros_like(skipped), skipped
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self._replicas is not None:
            loss = self._replicas.average(self._params, loss)
        norm = nn.utils.clip_grad_norm_(self._params, self._clip_norm, foreach=True)
        is_finite = norm.isfinite() & loss.detach().isfinite()
        skipped = torch.where(is_finite, skipped, 1.0)
        # Where this is 1, the fused kernel leaves parameters and moments alone: no GPU is waited for.
        self._optimizer.found_inf = skipped  # type: ignore[attr-defined]
        self._optimizer.step()
        return norm, skipped
