"""How long fragments are while sampling and learning go on at once."""

from __future__ import annotations

import math

# Fragments per second, of all runners together, that the main process has time for: each costs it 2 ms.
_PER_SECOND = 50.0
_SMOOTHING_S = 10.0


class FragmentLength:
    """As short as the main process can keep up with, because what the newest steps teach has to act soon.

    Args:
        least: agent steps of a request, where few come.
        most: likewise, however many come.

    Attributes:
        steps: of a request, now.
    """

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, max(least, most)
        self._rate, self._seen_at = 0.0, math.nan
        self.steps = least

    def count(self, steps: int, now: float) -> None:
        """So many steps have come since the last call; `now` is in seconds."""
        elapsed, self._seen_at = now - self._seen_at, now
        if not elapsed > 0:  # the first call
            return
        share = -math.expm1(-elapsed / _SMOOTHING_S)
        self._rate += share * (steps / elapsed - self._rate)
        self.steps = min(max(math.ceil(self._rate / _PER_SECOND), self._least), self._most)
