"""Which episodes are kept from training, so that losses on them show what has been learned by heart."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


def is_held_out(number: ArrayLike, share: float) -> NDArray[np.bool_]:
    """Whether episodes are kept, by their numbers from 1: a share below 0.5, evenly, and never the first."""
    numbers = np.asarray(number)
    before, after = ((n * share + 0.5).astype(np.int64) for n in (numbers - 1.0, numbers * 1.0))
    return np.asarray(after > before)


class EpisodePart(NamedTuple):
    """The episodes that a share keeps from training, or all others."""

    share: float
    is_held_out: bool

    def has(self, number: ArrayLike) -> NDArray[np.bool_]:
        """Whether episodes belong to the part, by their numbers from 1."""
        return is_held_out(number, self.share) == self.is_held_out
