"""Many fits at once of a law to the logarithms of steps, of which some are only known to be larger.

The law: log(exp(f) + sum over axes k of exp(p_k - e_k x_k)), of the logarithms x of what was varied, around
their means. A row of parameters is (f, p_1, log e_1, p_2, log e_2, ...), and every row is fitted to data of
its own: refits to hundreds of simulated studies take as long as a few one after another would.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.special import log_ndtr

from tdmpc_ray.studies.results.scaling import Floats

Flags = NDArray[np.bool_]

EXPONENTS = (0.02, 5.0)  # outside of them, a term is a constant or a step
_STARTS = np.log([0.1, 0.3, 0.7, 1.5, 3.0])
_ROUNDS = 60
_CONVERGED = 1e-9
_LEAST_SPREAD = 1e-3
_LONGEST_STEP = 2.0
_HALF_LOG_TAU = 0.5 * np.log(2 * np.pi)


class Data(NamedTuple):
    """What B rows are fitted to.

    Attributes:
        x: centred logarithms of the places of R runs on K axes, (R, K).
        log_steps: (B, R).
        is_beyond: whether it took more steps than that, (B, R).
    """

    x: Floats
    log_steps: Floats
    is_beyond: Flags

    def repeated(self, rows: int) -> Data:
        """One row's data for several."""
        return Data(self.x, np.tile(self.log_steps, (rows, 1)), np.tile(self.is_beyond, (rows, 1)))


class Box(NamedTuple):
    """Least and largest parameters, (P,) or (B, P); where they are equal, a parameter is fixed."""

    low: Floats
    high: Floats


@dataclass
class _State:
    theta: Floats
    spread: Floats
    loss: Floats
    residual: Floats
    slopes: Floats


class Fits(NamedTuple):
    """Parameters (B, P), standard deviations of the logarithms (B,), and negative log-likelihoods (B,)."""

    theta: Floats
    spread: Floats
    loss: Floats


def log_law(theta: Floats, x: Floats) -> Floats:
    """Logarithms of steps, (B, R)."""
    return _law_and_slopes(theta, x)[0]


def box_of(log_steps: Floats, num_axes: int) -> Box:
    """Wide enough for any law that such steps can tell of."""
    least, most = float(log_steps.min()), float(log_steps.max())
    low, high = np.log(EXPONENTS)
    return Box(
        np.array([least - 5] + [least - 8, low] * num_axes),
        np.array([most] + [most + 2, high] * num_axes),
    )


def start_points(data: Data, box: Box) -> Floats:
    """Starts on a grid of exponents; floor and terms by non-negative least squares of relative errors."""
    steps, num_axes = np.exp(data.log_steps[0]), data.x.shape[1]
    found = []
    for logs in product(_STARTS, repeat=num_axes):
        terms = np.concatenate([np.ones((len(steps), 1)), np.exp(-np.exp(np.array(logs)) * data.x)], axis=1)
        sizes, _ = optimize.nnls(terms / steps[:, None], np.ones(len(steps)))
        theta = np.empty(1 + 2 * num_axes)
        sizes = np.log(np.maximum(sizes, 0.01 * steps.min()))
        theta[0], theta[1::2], theta[2::2] = sizes[0], sizes[1:], logs
        found.append(np.clip(theta, *box))
    return np.array(found)


def fit_rows(theta: Floats, data: Data, box: Box, rounds: int = _ROUNDS) -> Fits:
    """Maximum likelihood within a box, by damped scoring steps from `theta`, each row by itself."""
    state = _evaluate(np.clip(theta, *box), None, data)
    damping = np.full(len(theta), 1e-2)
    for _ in range(rounds):
        step = _scoring_step(state, data, box, damping)
        new = _evaluate(np.clip(state.theta + step, *box), state.spread, data)
        gain = state.loss - new.loss
        is_better = gain > 0
        for name, value in vars(new).items():
            old = getattr(state, name)
            mask = is_better.reshape(-1, *[1] * (old.ndim - 1))
            setattr(state, name, np.where(mask, value, old))
        damping = np.clip(np.where(is_better, damping / 4, damping * 5), 1e-6, 1e6)
        if (np.where(is_better, gain, 0) < _CONVERGED).all() and (damping > 1).all():
            break
    return Fits(state.theta, state.spread, state.loss)


def _evaluate(theta: Floats, spread: Floats | None, data: Data) -> _State:
    logs, slopes = _law_and_slopes(theta, data.x)
    residual = data.log_steps - logs
    spread = _spread(residual, spread, data.is_beyond)
    z = residual / spread[:, None]
    seen = 0.5 * z * z + np.log(spread)[:, None] + _HALF_LOG_TAU
    loss = np.where(data.is_beyond, -log_ndtr(-z), seen).sum(axis=1)
    return _State(theta, spread, loss, residual, slopes)


def _law_and_slopes(theta: Floats, x: Floats) -> tuple[Floats, Floats]:
    """Logarithms of steps, (B, R), and their derivatives, (B, R, P)."""
    exponents = np.exp(theta[:, None, 2::2])
    terms = theta[:, None, 1::2] - exponents * x
    logs = np.concatenate([np.broadcast_to(theta[:, None, :1], (*terms.shape[:2], 1)), terms], axis=-1)
    top = logs.max(axis=-1, keepdims=True)
    parts = np.exp(logs - top)
    total = parts.sum(axis=-1, keepdims=True)
    shares = parts / total
    slopes = np.empty((*terms.shape[:2], theta.shape[1]))
    slopes[..., 0] = shares[..., 0]
    slopes[..., 1::2] = shares[..., 1:]
    slopes[..., 2::2] = -shares[..., 1:] * exponents * x
    return (top + np.log(total))[..., 0], slopes


def _hazard(z: Floats) -> Floats:
    """Density of the normal distribution over what lies beyond."""
    return np.asarray(np.exp(-0.5 * z * z - _HALF_LOG_TAU - log_ndtr(-z)))


def _spread(residual: Floats, before: Floats | None, is_beyond: Flags) -> Floats:
    """Standard deviation, (B,); what is beyond counts as it would be expected there (EM steps)."""
    spread = np.sqrt((residual**2).mean(axis=1)) if before is None else before
    for _ in range(4 if is_beyond.any() else 1):
        s = np.maximum(spread, _LEAST_SPREAD)[:, None]
        expected = s**2 * (1 + residual / s * _hazard(residual / s)) if is_beyond.any() else 0.0
        spread = np.sqrt(np.where(is_beyond, expected, residual**2).mean(axis=1))
    return np.maximum(spread, _LEAST_SPREAD)


def _scoring_step(state: _State, data: Data, box: Box, damping: Floats) -> Floats:
    z = state.residual / state.spread[:, None]
    hazard = _hazard(z)
    pull = np.where(data.is_beyond, hazard, z) / state.spread[:, None]
    weight = np.where(data.is_beyond, np.clip(hazard * (hazard - z), 1e-6, 1), 1.0)
    weight = weight / state.spread[:, None] ** 2
    gradient = np.einsum("brp,br->bp", state.slopes, pull)
    curvature = np.einsum("brp,br,brq->bpq", state.slopes, weight, state.slopes)
    at_end = ((state.theta <= box.low + 1e-9) & (gradient < 0)) | (
        (state.theta >= box.high - 1e-9) & (gradient > 0)
    )
    at_end |= np.broadcast_to(box.high - box.low < 1e-12, at_end.shape)
    eye = np.eye(state.theta.shape[1])
    diagonal = np.einsum("bpp->bp", curvature)
    curvature = curvature + (damping[:, None] * (diagonal + 1e-3))[:, :, None] * eye
    is_free = ~at_end[:, :, None] & ~at_end[:, None, :]
    step = np.linalg.solve(np.where(is_free, curvature, eye), np.where(at_end, 0, gradient)[..., None])
    return np.clip(step[..., 0], -_LONGEST_STEP, _LONGEST_STEP)
