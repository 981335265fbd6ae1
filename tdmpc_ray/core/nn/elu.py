"""What follows a product in TD-MPC, fused on the CPU: its bias, and ELU."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc_ray.core.nn import kernels

_Sizes = tuple[int, int, int, int]  # the trailing arguments of bias_elu_*


class EluMLP(nn.Sequential):
    """Linear, ELU, Linear, ELU, ..., Linear.

    Args:
        sizes: of what comes in, of each hidden layer, and of what comes out.
    """

    def __init__(self, *sizes: int) -> None:
        layers: list[nn.Module] = []
        for in_dim, out_dim in pairwise(sizes):
            layers += [nn.Linear(in_dim, out_dim), nn.ELU()]
        super().__init__(*layers[:-1])

    @property
    def linear(self) -> list[nn.Linear]:
        """The layers that have parameters."""
        return [layer for layer in self if isinstance(layer, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        return self.from_product(F.linear(x, self.linear[0].weight))

    def from_product(self, x: Tensor) -> Tensor:
        """The same, of the first layer's product without its bias."""
        first, *hidden, last = self.linear
        x = bias_elu(x, first.bias)
        for layer in hidden:
            x = bias_elu(F.linear(x, layer.weight), layer.bias)
        return F.linear(x, last.weight, last.bias)


def bias_elu(x: Tensor, offset: Tensor) -> Tensor:
    """elu(x + offset).

    Args:
        x: a product, (..., D), float32 or bfloat16; with an ensemble of K, (K, B, D).
        offset: its bias, (D,) or (K, D).

    Returns:
        Like `x`.
    """
    if kernels.fusable(x, offset):
        x, offset = x.contiguous(), offset.contiguous()
        dim = x.shape[-1]
        sizes = (
            int(x.dtype == torch.bfloat16),
            x.numel() // dim,
            dim,
            max(x.numel() // offset.numel(), 1),
        )
        if torch.is_grad_enabled() and (x.requires_grad or offset.requires_grad):
            return _BiasElu.apply(x, offset, sizes)
        return _forward(x, offset, sizes)
    return F.elu(x + (offset.unsqueeze(1) if offset.dim() == 2 else offset)).to(x.dtype)


def _forward(x: Tensor, offset: Tensor, sizes: _Sizes) -> Tensor:
    y = torch.empty_like(x)
    kernels.library().bias_elu_forward(x.data_ptr(), offset.data_ptr(), y.data_ptr(), *sizes)  # type: ignore[union-attr]
    return y


class _BiasElu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, offset: Tensor, sizes: _Sizes) -> Tensor:
        y = _forward(x, offset, sizes)
        ctx.save_for_backward(y, offset)
        ctx.sizes = sizes
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        y, offset = ctx.saved_tensors
        dy, dx = grads[0].contiguous(), torch.empty_like(y)
        d_offset = torch.zeros_like(offset) if ctx.needs_input_grad[1] else None
        kernels.library().bias_elu_backward(  # type: ignore[union-attr]
            *(t.data_ptr() for t in (y, dy, dx)), 0 if d_offset is None else d_offset.data_ptr(), *ctx.sizes
        )
        return dx, d_offset, None
