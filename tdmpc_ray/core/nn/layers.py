"""Building blocks of the networks: normalised layers and an ensemble of stacked weights."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc_ray.core.nn.kernels import norm_act


def simnorm(x: Tensor, group: int) -> Tensor:
    """Softmax over groups of `group` values (paper, equation 5), (..., D)."""
    return x.unflatten(-1, (-1, group)).softmax(-1).flatten(-2)


class NormedLinear(nn.Linear):
    """Linear, LayerNorm, then Mish, or SimNorm where the output is a latent.

    Args:
        simnorm_dim: group size of SimNorm; 0 means Mish.
    """

    def __init__(self, in_dim: int, out_dim: int, simnorm_dim: int = 0) -> None:
        super().__init__(in_dim, out_dim)
        self.ln = nn.LayerNorm(out_dim)
        self.simnorm_dim = simnorm_dim

    def forward(self, x: Tensor) -> Tensor:
        return self.norm_act(F.linear(x, self.weight))

    def norm_act(self, x: Tensor) -> Tensor:
        """What follows the product, from its bias on."""
        return norm_act(x, self.bias, self.ln.weight, self.ln.bias, self.simnorm_dim)


def latent_layer(in_dim: int, latent_dim: int, simnorm_dim: int) -> nn.Linear:
    """The layer that puts latents out; without SimNorm it is a plain one."""
    return NormedLinear(in_dim, latent_dim, simnorm_dim) if simnorm_dim else nn.Linear(in_dim, latent_dim)


def mlp(in_dim: int, hidden: Sequence[int], out_dim: int, simnorm_dim: int = 0) -> nn.Sequential:
    """Normalised hidden layers and a plain output, or a SimNorm output where `simnorm_dim` is given."""
    dims = [in_dim, *hidden]
    layers: list[nn.Module] = [NormedLinear(a, b) for a, b in itertools.pairwise(dims)]
    layers.append(latent_layer(dims[-1], out_dim, simnorm_dim))
    return nn.Sequential(*layers)


class _EnsembleProduct(torch.autograd.Function):
    """`torch.bmm` whose gradients come in the layout of the weights, and summed over the heads where they
    share an input: PyTorch's own would be copied and added up afterwards."""

    @staticmethod
    @torch.amp.custom_fwd(cast_inputs=torch.bfloat16, device_type="cpu")
    def forward(ctx: Any, x: Tensor, weight: Tensor, constant: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.constant = constant
        return torch.bmm(x.expand(len(weight), -1, -1), weight.mT)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (dy,), dx, d_weight = grads, None, None
        if ctx.needs_input_grad[0] and x.dim() == 3:
            dx = torch.bmm(dy, weight)
        elif ctx.needs_input_grad[0]:
            dx = torch.empty_like(x)
            dx[:, : ctx.constant] = 0
            varying, weight = dx[:, ctx.constant :], weight[..., ctx.constant :]
            torch.mm(dy[0], weight[0], out=varying)
            for dy_k, weight_k in zip(dy[1:], weight[1:], strict=True):
                torch.addmm(varying, dy_k, weight_k, out=varying)
        if ctx.needs_input_grad[1]:
            d_weight = torch.bmm(dy.mT, x.expand(len(dy), -1, -1))
        return dx, d_weight, None


def ensemble_product(x: Tensor, weight: Tensor, constant: int = 0) -> Tensor:
    """One product per head: (B, in), shared, or (K, B, in), by (K, out, in) to (K, B, out).

    Args:
        constant: how many leading columns of a shared `x` need no gradient, and may get zeros.
    """
    if torch.is_grad_enabled() and x.device.type == "cpu" and not torch.compiler.is_compiling():
        return _EnsembleProduct.apply(x, weight, constant)
    return torch.bmm(x.expand(len(weight), -1, -1), weight.mT)


class EnsembleLinear(nn.Module):
    """K linear layers as one batched product; with `normed`, each followed by LayerNorm and Mish."""

    def __init__(self, num: int, in_dim: int, out_dim: int, *, normed: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num, out_dim, in_dim))
        self.bias = nn.Parameter(torch.zeros(num, out_dim))
        self.dropout = dropout
        self.normed = normed
        if normed:
            self.ln_weight = nn.Parameter(torch.ones(num, out_dim))
            self.ln_bias = nn.Parameter(torch.zeros(num, out_dim))

    def forward(
        self, x: Tensor, heads: Tensor | None = None, detach: bool = False, constant: int = 0
    ) -> Tensor:
        """Apply all heads, or those in `heads` (J,): (B, in) or (J, B, in) -> (J, B, out)."""

        def pick(parameter: Tensor) -> Tensor:
            parameter = parameter.detach() if detach else parameter
            return parameter if heads is None else parameter.index_select(0, heads)

        x = ensemble_product(x, pick(self.weight), constant)
        if not self.normed:
            return x + pick(self.bias).unsqueeze(1)
        dropout = self.dropout if self.training else 0.0
        return norm_act(x, pick(self.bias), pick(self.ln_weight), pick(self.ln_bias), dropout=dropout)


class EnsembleMLP(nn.Module):
    """K MLPs of one shape with stacked weights; dropout on the first hidden layer only."""

    def __init__(self, num: int, in_dim: int, hidden: Sequence[int], out_dim: int, dropout: float) -> None:
        super().__init__()
        self.num = num
        dims = [in_dim, *hidden]
        layers = [
            EnsembleLinear(num, a, b, normed=True, dropout=dropout if i == 0 else 0.0)
            for i, (a, b) in enumerate(itertools.pairwise(dims))
        ]
        self.layers = nn.ModuleList([*layers, EnsembleLinear(num, dims[-1], out_dim, normed=False)])

    def forward(
        self, x: Tensor, heads: Tensor | None = None, detach: bool = False, constant: int = 0
    ) -> Tensor:
        """Evaluate the heads on shared inputs.

        Args:
            x: (..., in).
            heads: indices of the heads to evaluate, (J,); None means all.
            detach: let gradients flow to `x` but not to the parameters.
            constant: how many leading columns of `x` need no gradient.

        Returns:
            Outputs, (J, ..., out).
        """
        if heads is not None and len(heads) == self.num:
            heads = None  # all heads: their order means nothing, and the gather can be saved
        first, *rest = self.layers
        y = first(x.reshape(-1, x.shape[-1]), heads, detach, constant)
        for layer in rest:
            y = layer(y, heads, detach)
        return y.reshape(len(y), *x.shape[:-1], y.shape[-1])
