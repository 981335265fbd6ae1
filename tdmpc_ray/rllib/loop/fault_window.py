"""How many faults of environments a run survives."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from tdmpc_ray.errors import PassingError

WINDOW = 1000  # agent steps
_TOLD = 3  # faults at a time, word by word


class FaultWindow:
    """Remembers the faults of the last 1,000 agent steps.

    Args:
        limit: that many are survived.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._steps = limit, 0
        self._seen: deque[tuple[int, str]] = deque()
        self._untold: list[str] = []

    def add(self, faults: Sequence[str], steps: int) -> None:
        """Count faults that happened during the next `steps` agent steps.

        Raises:
            UserError: there are too many.
        """
        self._steps += steps
        self._untold += faults
        self._seen.extend((self._steps, fault) for fault in faults)
        while self._seen and self._seen[0][0] <= self._steps - WINDOW:
            self._seen.popleft()
        if len(self._seen) > self._limit:
            count = "1 fault" if len(self._seen) == 1 else f"{len(self._seen)} faults"
            within = min(self._steps, WINDOW)
            raise PassingError(
                f"{count} of environments within {within:,} agent steps, more than max_env_faults="
                f"{self._limit}: mend the environment, or raise the limit; the last one: {self._seen[-1][1]}"
            )

    def lines(self) -> list[str]:
        """What to tell the user of the faults since the last call."""
        untold, self._untold = self._untold, []
        lines = [f"an environment was rebuilt: {fault}" for fault in untold[:_TOLD]]
        more = len(untold) - len(lines)
        return lines + [f"and {more} more were rebuilt"] * bool(more)
