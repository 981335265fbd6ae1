"""When env runners are due new weights while sampling and learning go on at once."""

from __future__ import annotations

import math

# Of the learner's time, what the copies to the object store may take.
_SHARE = 0.05


class WeightsPeriod:
    """After so many updates, but not before so many seconds.

    Args:
        updates: between two copies of the weights, at least.
        seconds: likewise; None: as many as keep the copies at a twentieth of the time.

    Attributes:
        due_s: when the next ones may be asked for, in seconds.
    """

    def __init__(self, updates: int, seconds: float | None) -> None:
        self._updates, self._seconds = updates, seconds
        self.reset()

    def reset(self) -> None:
        """Begin anew: the next ones are due after `updates` updates."""
        self._asked_at, self.due_s = 0, -math.inf

    def is_due(self, updates: int, now: float) -> bool:
        """Whether to ask for weights.

        Args:
            updates: that will have made them.
            now: in seconds.
        """
        return updates - self._asked_at >= self._updates and now >= self.due_s

    def ask(self, updates: int) -> None:
        """Weights that so many updates have made were asked for."""
        self._asked_at = updates

    def take(self, cost_s: float, now: float) -> None:
        """They have come; the learner's copy took `cost_s` seconds."""
        self.due_s = now + (cost_s / _SHARE if self._seconds is None else self._seconds)
