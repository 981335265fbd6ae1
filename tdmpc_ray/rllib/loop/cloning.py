"""The phase before a run's first step, in which the learners imitate the demonstrations."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tdmpc_ray.rllib.learning.learner import AgentLearner
from tdmpc_ray.rllib.loop.learner_link import LearnerLink
from tdmpc_ray.rllib.loop.progress import Progress

_STEPS_PER_CALL = 25


class CloningPhase:
    """Has the learners clone, and hands the clone to the env runners.

    Args:
        config: of the algorithm.
        progress: of the run.
        link: to the learners.
        sync_weights: hands the learners' networks to the env runners.
    """

    def __init__(
        self, config: Any, progress: Progress, link: LearnerLink, sync_weights: Callable[[], None]
    ) -> None:
        self._config, self._progress, self._link, self._sync_weights = config, progress, link, sync_weights
        progress.cloning_total = link.call(AgentLearner.num_cloning_updates)

    def run(self) -> bool:
        """One iteration, if there is something left to clone; False: there is nothing.

        Raises:
            UserError: nothing that the learners compute is finite.
        """
        progress, started = self._progress, time.perf_counter()
        if not progress.cloning_left:
            return False
        while progress.cloning_left:
            num = min(progress.cloning_left, _STEPS_PER_CALL)
            means = self._link.call(AgentLearner.clone, done=progress.cloned, num=num)
            progress.cloned += num
            progress.reporter.add_means(means)
            if time.perf_counter() - started > self._config.max_time_s_per_iteration:
                break
        progress.reporter.add_time("learn", time.perf_counter() - started)
        if not progress.cloning_left:
            self._sync_weights()
            progress.notes.append(f"{progress.cloned:,} updates have cloned the demonstrations")
        return True
