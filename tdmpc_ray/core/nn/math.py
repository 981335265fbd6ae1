"""Scalar transforms and distributions of TD-MPC2 (paper, appendix on discrete regression and policy)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def symlog(x: Tensor) -> Tensor:
    """Compress magnitudes symmetrically: sign(x) log(1 + |x|)."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """The inverse of symlog."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


def _two_hot_bins(x: Tensor, low: float, high: float, num_bins: int) -> tuple[Tensor, Tensor]:
    """Lower bin (int64) and the share of the bin above it, for symlog(x) on an even grid."""
    position = (symlog(x).clamp(low, high) - low) * ((num_bins - 1) / (high - low))
    lower = position.floor().clamp(max=num_bins - 2)
    return lower.long().clamp_(min=0), position - lower  # NaN is no index, but shall reach the loss


def two_hot(x: Tensor, low: float, high: float, num_bins: int) -> Tensor:
    """Spread each scalar over its two nearest bins.

    Args:
        x: scalars, (..., 1).
        low: first bin, in symlog space.
        high: last bin.
        num_bins: number of bins K.

    Returns:
        Weights that sum to one, (..., K).
    """
    lower, share = _two_hot_bins(x, low, high, num_bins)
    out = torch.zeros(*x.shape[:-1], num_bins, dtype=x.dtype, device=x.device)
    return out.scatter(-1, lower, 1 - share).scatter(-1, lower + 1, share)


def two_hot_cross_entropy(logits: Tensor, target: Tensor, low: float, high: float) -> Tensor:
    """Cross-entropy of `logits` against two-hot encoded scalars, without building the encoding.

    Args:
        logits: (..., K).
        target: scalars, broadcastable to (..., 1).

    Returns:
        Losses, (..., 1).
    """
    lower, share = _two_hot_bins(target, low, high, logits.shape[-1])
    shape = (*logits.shape[:-1], 1)
    log_prob = F.log_softmax(logits.float(), -1)
    below = log_prob.gather(-1, lower.expand(shape))
    above = log_prob.gather(-1, (lower + 1).expand(shape))
    return -(below + share * (above - below))


class PolicySample(NamedTuple):
    """A sample of the squashed Gaussian policy prior; actions (..., A), the rest (..., 1) unless said."""

    action: Tensor
    mean: Tensor  # squashed mean, (..., A)
    log_std: Tensor  # (..., A)
    entropy: Tensor  # -log pi(action)
    scaled_entropy: Tensor  # what the policy loss rewards


def clamped_gaussian(mean: Tensor, log_std: Tensor, eps: Tensor, mask: Tensor | None = None) -> PolicySample:
    """Sample mean + std * eps, clamped to [-1, 1]; entropy terms are those of the Gaussian before (BMPC).

    Args:
        mean: within the bounds, (..., A).
        log_std: (..., A).
        eps: standard-normal noise, (..., A).
        mask: 1.0 for the dimensions that count, (..., A); the others act with zero.
    """
    size: int | Tensor = mean.shape[-1]
    logs = -0.5 * eps.square() - log_std - LOG_SQRT_2PI
    action = (mean + eps * log_std.exp()).clamp(-1, 1)
    if mask is not None:
        mean, action, logs = mean * mask, action * mask, logs * mask
        size = mask.sum(-1, keepdim=True)
    entropy = -logs.sum(-1, keepdim=True)
    return PolicySample(action, mean, log_std, entropy, entropy * size)


def squashed_gaussian(mean: Tensor, log_std: Tensor, eps: Tensor, mask: Tensor | None = None) -> PolicySample:
    """Sample tanh(mean + std * eps) and its entropy terms.

    The scaled entropy multiplies the entropy with (A * Gaussian log-prob / log-prob of the squashed
    action), as published; the log-prob cancels, which leaves A times the negative Gaussian log-prob.

    Args:
        mean: before squashing, (..., A).
        log_std: (..., A).
        eps: standard-normal noise, (..., A).
        mask: 1.0 for the dimensions that count, (..., A); the others act with zero. As published they still
            add their constant to the Gaussian log-prob.
    """
    size: int | Tensor = mean.shape[-1]
    if mask is not None:
        mean, log_std, eps = mean * mask, log_std * mask, eps * mask
        size = mask.sum(-1, keepdim=True)
    gaussian = (-0.5 * eps.square() - log_std - LOG_SQRT_2PI).sum(-1, keepdim=True)
    action = torch.tanh(mean + eps * log_std.exp())
    correction = torch.log(F.relu(1 - action.square()) + 1e-6).sum(-1, keepdim=True)
    return PolicySample(action, torch.tanh(mean), log_std, correction - gaussian, -gaussian * size)
