"""Sampling and learning at once, held together by the ratio of updates to steps."""

from __future__ import annotations

import sys
import time
from typing import Any

import ray

from tdmpc_ray.rllib.acting.fragments import RUNNER_STEPS, Sampled, Weights
from tdmpc_ray.rllib.learning.learner import AgentLearner
from tdmpc_ray.rllib.learning.work import merged
from tdmpc_ray.rllib.loop.env_runners import AsyncSampler, shards
from tdmpc_ray.rllib.loop.fragment_length import FragmentLength
from tdmpc_ray.rllib.loop.learner_link import LearnerLink
from tdmpc_ray.rllib.loop.progress import Progress
from tdmpc_ray.rllib.loop.weights_period import WeightsPeriod

_WAIT_S = 1.0
# A learner in this process keeps it from handing out work for so long; the runners have two requests each.
_CALL_S = 0.2


class AsyncLoop:
    """Remote env runners sample while the learner learns, in this process or in one of its own.

    Fragments stay where they were made until the learner takes them; only references to them come here where
    the learner is remote. A fast sampler is held back `Pace.lead` steps ahead of the updates, a fast learner
    waits for steps.

    Every agent step that was begun is in exactly one of four places, and so are the updates:

        in flight at runners -> arrived here -> given to the learner -> counted by `Pace.env_steps`
        allowed by steps >= counted by `Pace.grad_updates` + started

    Steps in the second and third place are `_uncounted`; `check` states both.

    Args:
        config: of the algorithm.
        progress: of the run.
        link: to the learners.
        runners: RLlib's `EnvRunnerGroup`.
    """

    def __init__(self, config: Any, progress: Progress, link: LearnerLink, runners: Any) -> None:
        self._config, self._progress, self._link, self._runners = config, progress, link, runners
        self._pace = progress.pace
        self._is_remote = config.num_learners > 0
        fragment = config.get_rollout_fragment_length() * config.num_envs_per_env_runner
        is_free = config.rollout_fragment_length == "auto"
        self._fragment = FragmentLength(fragment, RUNNER_STEPS if is_free else fragment)
        self._sampler = AsyncSampler(self._runners)
        self._arrived: list[Sampled] = []  # what the learners have not been given
        self._uncounted = 0  # steps of these, and of those that it has not answered for
        self._updates_started = 0  # that it has not answered for
        self._weights: Weights | None = None  # the newest, which go along with every request
        self._period = WeightsPeriod(config.weights_every, config.weights_every_s)
        self._update_s = _CALL_S

    def run(self) -> None:
        """One iteration: so many steps or so much time, and at the run's end all updates that are owed."""
        config, pace, started = self._config, self._pace, time.perf_counter()
        boundary, total = pace.env_steps + config.steps_per_iteration, config.total_steps
        while True:
            self._take()
            is_held = self._request()
            is_moving = self._start()
            is_moving = self._finish() or is_moving
            if total is not None and pace.env_steps >= total:
                if not (self._arrived or self._link.num_open or pace.updates_owed()):
                    break
            elif (
                pace.env_steps >= boundary or time.perf_counter() - started > config.max_time_s_per_iteration
            ):
                break
            if not (is_moving or self._wait(is_held)):
                break
        self._progress.reporter.add_time("loop", time.perf_counter() - started)

    def drain(self) -> None:
        """Give the learner all that has arrived, and wait for its answers: counters and replay agree."""
        self._take()
        self._finish(wait=True)
        if self._arrived:
            self._send(num_updates=0, with_weights=False)
            self._finish(wait=True)

    def discard(self) -> None:
        """Drop all that is under way: the state that it belongs to has been replaced."""
        self._finish(wait=True)
        self._sampler.discard()
        self._arrived.clear()
        self._uncounted = 0
        self._weights = None
        self._period.reset()

    def check(self) -> None:
        """Assert what holds between two turns of the loop; for tests."""
        waiting = sum(sampled.steps for sampled in self._arrived)
        assert 0 <= waiting <= self._uncounted, (waiting, self._uncounted)
        assert self._link.num_open or waiting == self._uncounted
        assert self._updates_started >= 0
        assert self._link.num_open or self._updates_started == 0
        assert self._pace.grad_updates + self._updates_started <= self._pace.allowed()

    def _take(self) -> None:
        sampled = self._sampler.ready()
        self._progress.counters.lost_fragments += self._sampler.take_lost()
        if sampled:
            self._progress.observe(sampled)
        self._arrived.extend(sampled)
        steps = sum(part.steps for part in sampled)
        self._uncounted += steps
        if sampled:
            self._fragment.count(steps, time.perf_counter())
            self._pace.lead = self._config.lead_of(self._fragment.steps)

    def _request(self) -> bool:
        """Keep the runners busy; returns whether the updates hold them back."""
        pace, total = self._pace, self._config.total_steps
        pending = self._sampler.steps_in_flight + self._uncounted
        room = pace.room(pending)
        remaining = sys.maxsize if total is None else total - pace.env_steps - pending
        if pace.grad_updates == 0:  # the number of random steps counts; from the first update on, the ratio
            remaining = min(remaining, room)
        return self._sampler.request(self._fragment.steps, room, remaining, self._weights)

    def _start(self) -> bool:
        """Give the learner what has arrived, and the updates that are owed."""
        config, pace = self._config, self._pace
        num_updates = min(pace.updates_owed() - self._updates_started, config.updates_per_call)
        if not self._is_remote:
            num_updates = min(num_updates, max(1, int(_CALL_S / self._update_s)))
        if self._link.is_busy or not (self._arrived or num_updates > 0):
            return False
        reached = pace.grad_updates + self._updates_started + num_updates
        self._send(num_updates, num_updates > 0 and self._period.is_due(reached, time.perf_counter()))
        return True

    def _send(self, num_updates: int, with_weights: bool) -> None:
        batches = shards(self._arrived, self._link.num_learners)
        self._arrived.clear()
        self._updates_started += num_updates
        if with_weights:
            self._period.ask(self._pace.grad_updates + self._updates_started)
        same = {"num_updates": num_updates, "with_weights": with_weights}
        self._link.start(AgentLearner.work, [{"batches": own, **same} for own in batches])

    def _finish(self, *, wait: bool = False) -> bool:
        """Count what the learners have done; keep their weights for the runners."""
        done = [merged(works) for works in self._link.ready(wait=wait)]
        for work in done:
            self._uncounted -= work.added + work.lost_steps
            self._updates_started -= work.num_updates
            self._progress.count(work)
            if work.num_updates:
                self._update_s = work.seconds / work.num_updates
            if work.weights is not None:
                updates = self._progress.updates_before + self._pace.grad_updates
                self._weights = Weights(work.weights, updates)
                self._period.take(work.weights_s, time.perf_counter())
        return bool(done)

    def _wait(self, is_held: bool) -> bool:
        """Until something happens; False where nothing can, as all runners are dead."""
        refs = self._sampler.refs() + self._link.refs()
        if not refs:
            time.sleep(_WAIT_S)  # RLlib restarts runners between iterations
            return False
        started, is_idle = time.perf_counter(), self._link.num_open == 0
        ray.wait(refs, num_returns=1, timeout=_WAIT_S)
        waited = time.perf_counter() - started
        if is_idle:
            self._progress.reporter.add_time("learner_wait", waited)
        if is_held:
            self._progress.reporter.add_time("sampler_wait", waited)
        return True
