"""Draws from many weights that change all the time."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_FAN_OUT = 32  # children per node: four levels for a million weights, each a handful of numpy calls


class SumTree:
    """Non-negative weights, drawn in proportion; O(log n) per change and per draw, many at once.

    Args:
        size: number of weights, all zero at first.
    """

    def __init__(self, size: int) -> None:
        # numpy.zeros maps memory lazily: weights that were never set cost nothing.
        self._levels: list[NDArray[np.float64]] = []
        nodes = size
        while not self._levels or nodes > 1:
            nodes = -(-nodes // _FAN_OUT)
            self._levels.append(np.zeros((nodes, _FAN_OUT)))

    @property
    def total(self) -> float:
        """Sum of all weights."""
        return float(self._levels[-1].sum())

    def __getitem__(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._levels[0].reshape(-1)[index]

    def set(self, index: NDArray[np.int64], weight: ArrayLike) -> None:
        """Replace weights (N,) or one weight for all; of an index that comes twice the last one counts."""
        self._levels[0].reshape(-1)[index] = weight
        for below, level in zip(self._levels, self._levels[1:], strict=False):
            index = np.unique(index // _FAN_OUT)
            # Sums are built anew rather than adjusted: no rounding errors pile up.
            level.reshape(-1)[index] = below[index].sum(axis=1)

    def draw(self, num: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw `num` indices with replacement, one from each of `num` equal parts of the total.

        Raises:
            ValueError: all weights are zero.
        """
        if not (total := self.total) > 0:
            raise ValueError("all weights are zero")
        left = (np.arange(num) + rng.random(num)) * (total / num)
        node = np.zeros(num, np.int64)
        for level in reversed(self._levels):
            sums = np.cumsum(level[node], axis=1)
            # Below the block's sum, even where rounding says otherwise: a weight of zero is never drawn.
            left = np.minimum(left, np.nextafter(sums[:, -1], 0))
            child = (sums <= left[:, None]).sum(axis=1)
            rows = np.arange(num)
            left -= np.where(child > 0, sums[rows, child - 1], 0.0)
            node = node * _FAN_OUT + child
        return node
