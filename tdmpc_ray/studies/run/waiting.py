"""What a study waits for while none of its trials runs, once a minute: a cluster may grow."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from tdmpc_ray.studies.plan.room import Bundles, misfit, most_of_each, said
from tdmpc_ray.studies.run.cluster import cluster_capacity

EVERY_S = 60.0


class SayWhatIsMissing(tune.Callback):
    """Says what trials wait for.

    Args:
        requests: what Ray reserves for the trials.
        say: called with a line for the user.
        clock: seconds.
    """

    def __init__(
        self,
        requests: Sequence[Bundles],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests, self._say, self._clock = requests, say, clock
        self._since: float | None = None

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        states = {trial.status for trial in trials}
        if Trial.RUNNING in states or not states & {Trial.PENDING, Trial.PAUSED}:
            self._since = None
            return
        now = self._clock()
        if self._since is None:
            self._since = now
        elif now - self._since >= EVERY_S:
            self._since = now
            self._say(f"no trial runs: {self._missing()}")

    def _missing(self) -> str:
        if reason := misfit(self._requests, cluster_capacity()):
            return f"{reason}; they wait until it grows"
        free = cluster_capacity(free=True)
        has = {name: free.total(name) for name in ("CPU", "GPU")}
        return f"the next one needs {said(most_of_each(self._requests))}; free: {said(has)}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_say": None}  # what prints cannot be pickled
