"""Building blocks of the networks: normalised layers and an ensemble of stacked weights."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tdmpc_ray.core.kernels import norm_act


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
        return self.norm_act(super().forward(x))

    def norm_act(self, x: Tensor) -> Tensor:
        """What follows the product."""
        return norm_act(x, self.ln.weight, self.ln.bias, self.simnorm_dim)


def mlp(in_dim: int, hidden: Sequence[int], out_dim: int, simnorm_dim: int = 0) -> nn.Sequential:
    """Normalised hidden layers and a plain output, or a SimNorm output where `simnorm_dim` is given."""
    dims = [in_dim, *hidden]
    layers: list[nn.Module] = [NormedLinear(a, b) for a, b in itertools.pairwise(dims)]
    layers.append(
        nn.Linear(dims[-1], out_dim) if not simnorm_dim else NormedLinear(dims[-1], out_dim, simnorm_dim)
    )
    return nn.Sequential(*layers)


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

    def forward(self, x: Tensor, heads: Tensor | None = None, detach: bool = False) -> Tensor:
        """Apply all heads, or those in `heads` (J,): (J, B, in) -> (J, B, out)."""

        def pick(parameter: Tensor) -> Tensor:
            parameter = parameter.detach() if detach else parameter
            return parameter if heads is None else parameter.index_select(0, heads)

        x = torch.baddbmm(pick(self.bias).unsqueeze(1), x, pick(self.weight).transpose(1, 2))
        if not self.normed:
            return x
        return norm_act(
            x, pick(self.ln_weight), pick(self.ln_bias), dropout=self.dropout if self.training else 0.0
        )


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

    def forward(self, x: Tensor, heads: Tensor | None = None, detach: bool = False) -> Tensor:
        """Evaluate the heads on shared inputs.

        Args:
            x: (..., in).
            heads: indices of the heads to evaluate, (J,); None means all.
            detach: let gradients flow to `x` but not to the parameters.

        Returns:
            Outputs, (J, ..., out).
        """
        if heads is not None and len(heads) == self.num:
            heads = None  # all heads: their order means nothing, and the gather can be saved
        num = self.num if heads is None else len(heads)
        y = x.reshape(1, -1, x.shape[-1]).expand(num, -1, -1)
        for layer in self.layers:
            y = layer(y, heads, detach)
        return y.reshape(num, *x.shape[:-1], y.shape[-1])
