"""Learning from a dataset: updates alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tdmpc_ray.rllib.learning.learner import AgentLearner
from tdmpc_ray.rllib.learning.work import merged
from tdmpc_ray.rllib.loop.learner_link import LearnerLink
from tdmpc_ray.rllib.loop.progress import Progress


class OfflineLoop:
    """Has the learners update, and takes no steps; a run's length is counted in updates.

    Args:
        config: of the algorithm.
        progress: of the run.
        link: to the learners.
        sync_weights: hands the learners' networks to whoever evaluates.
    """

    def __init__(
        self, config: Any, progress: Progress, link: LearnerLink, sync_weights: Callable[[], None]
    ) -> None:
        self._config, self._progress, self._link = config, progress, link
        self._sync_weights = sync_weights

    def run(self) -> None:
        """One iteration: until its share of updates or of time is done, or an evaluation is due."""
        config, pace, started = self._config, self._progress.pace, time.perf_counter()
        boundary = self._next_boundary()
        while pace.grad_updates < boundary:
            num = min(boundary - pace.grad_updates, config.updates_per_call)
            self._work(num)
            if time.perf_counter() - started > config.max_time_s_per_iteration:
                break
        self._work(0)
        self._sync_weights()

    def drain(self) -> None:
        """Before a checkpoint: nothing is ever under way."""

    def discard(self) -> None:
        """Before a restore: nothing is ever under way."""

    def _next_boundary(self) -> int:
        config, done = self._config, self._progress.pace.grad_updates
        total = config.total_steps or done + config.steps_per_iteration
        boundaries = [done + config.steps_per_iteration, max(total, done)]
        if config.eval_every:
            boundaries.append((done // config.eval_every + 1) * config.eval_every)
        return min(boundaries)

    def _work(self, num_updates: int) -> None:
        call = {"batches": (), "num_updates": num_updates, "with_weights": False, "read": num_updates == 0}
        works = self._link.call_each(AgentLearner.work, [call] * self._link.num_learners)
        self._progress.count(merged(works))
