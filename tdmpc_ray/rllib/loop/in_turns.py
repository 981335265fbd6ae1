"""Sampling and learning in turns: what a seed gives once, it gives again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS

from tdmpc_ray.rllib.acting.fragments import RUNNER_STEPS, Sampled
from tdmpc_ray.rllib.learning.learner import AgentLearner
from tdmpc_ray.rllib.learning.work import merged
from tdmpc_ray.rllib.loop.env_runners import sample_together, shards
from tdmpc_ray.rllib.loop.learner_link import LearnerLink
from tdmpc_ray.rllib.loop.progress import Progress

_NO_RUNNER_S = 1.0


class TurnLoop:
    """Collect, store, update, and hand the new weights to the env runners.

    Args:
        config: of the algorithm.
        progress: of the run.
        link: to the learners.
        runners: RLlib's `EnvRunnerGroup`.
        metrics: RLlib's logger.
        sync_weights: hands the learners' networks to the env runners.
        owes_evaluation: whether all steps are taken and an evaluation is all that is left to do.
    """

    def __init__(
        self,
        config: Any,
        progress: Progress,
        link: LearnerLink,
        runners: Any,
        metrics: Any,
        *,
        sync_weights: Callable[[], None],
        owes_evaluation: Callable[[], bool],
    ) -> None:
        self._config, self._progress, self._link, self._runners = config, progress, link, runners
        self._metrics, self._sync_weights, self._owes_evaluation = metrics, sync_weights, owes_evaluation

    def run(self) -> None:
        """One iteration: until its share of steps or of time is done."""
        config, pace, started = self._config, self._progress.pace, time.perf_counter()
        boundary = self._next_boundary()
        while pace.env_steps < boundary or pace.updates_owed() > 0:
            if pace.updates_owed() == 0 and not self._collect(boundary - pace.env_steps):
                time.sleep(_NO_RUNNER_S)  # RLlib restarts runners between iterations
                break
            if num_updates := min(pace.updates_owed(), config.updates_per_call):
                self._work((), num_updates)
                if pace.updates_owed() == 0:
                    self._sync_weights()
            # Tune stops a trial at its last step, so there all updates have to be done.
            is_last = config.total_steps is not None and pace.env_steps >= config.total_steps
            if time.perf_counter() - started > config.max_time_s_per_iteration and not is_last:
                break
        self._work((), num_updates=0, read=True)
        if config.num_env_runners == 0:
            local = self._runners.local_env_runner
            self._metrics.aggregate([local.get_metrics()], key=ENV_RUNNER_RESULTS)

    def drain(self) -> None:
        """Before a checkpoint: nothing is ever under way."""

    def discard(self) -> None:
        """Before a restore: nothing is ever under way."""

    def _next_boundary(self) -> int:
        """Agent steps at which this iteration ends: its length, the next evaluation, or the last step."""
        config, steps = self._config, self._progress.pace.env_steps
        # A stop may have kept the last evaluation from taking place: it is all that is left to do.
        if self._progress.pace.updates_owed() > 0 or self._owes_evaluation():
            return steps
        boundaries = [steps + config.steps_per_iteration]
        if config.eval_every:
            boundaries.append((steps // config.eval_every + 1) * config.eval_every)
        if config.total_steps and steps < config.total_steps:
            boundaries.append(config.total_steps)
        return min(boundaries)

    def _collect(self, limit: int) -> bool:
        """Sample one fragment from every env runner, about `limit` steps in all; False: all are dead.

        Raises:
            UserError: an environment breaks its contract.
        """
        config, progress = self._config, self._progress
        fragment = config.get_rollout_fragment_length() * config.num_envs_per_env_runner
        if progress.pace.env_steps < progress.pace.seed_steps:
            limit = min(limit, progress.pace.seed_steps - progress.pace.env_steps)
        if progress.pace.grad_updates == 0:  # no update comes between
            fragment = max(fragment, RUNNER_STEPS)
        started = time.perf_counter()
        local = config.num_env_runners == 0
        sampled, dead = sample_together(self._runners, limit, fragment, local=local)
        progress.counters.lost_fragments += dead
        progress.reporter.add_time("sample", time.perf_counter() - started)
        if not sampled:
            return False
        progress.observe(sampled)
        self._work(sampled, num_updates=0)
        return True

    def _work(self, sampled: Sequence[Sampled], num_updates: int, *, read: bool = False) -> None:
        batches = shards(sampled, self._link.num_learners)
        same = {"num_updates": num_updates, "with_weights": False, "read": read}
        works = self._link.call_each(AgentLearner.work, [{"batches": own, **same} for own in batches])
        self._progress.count(merged(works))
