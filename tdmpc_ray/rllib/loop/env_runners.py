"""Fragments from the env runners: waited for together, or taken as they come."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from functools import partial
from typing import Any

import ray

from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.acting.actors import actors, open_requests
from tdmpc_ray.rllib.acting.env_runner import on_runners, result_or_error
from tdmpc_ray.rllib.acting.fragments import (
    REQUESTS_IN_FLIGHT,
    Sampled,
    Weights,
    sample_for_learner,
    sample_fragments,
    take_summary,
)

_TAG = "sample"


def sample_together(runners: Any, limit: int, fragment: int, *, local: bool) -> tuple[list[Sampled], int]:
    """One fragment from every env runner that lives, about `limit` steps in all.

    Args:
        runners: RLlib's `EnvRunnerGroup`.
        limit: agent steps; each runner takes its share of them.
        fragment: the most that one runner takes.
        local: whether the runner is the one in this process, which keeps its metrics.

    Returns:
        The fragments; the number of runners that died with theirs.

    Raises:
        UserError: an environment breaks its contract.
    """
    num_runners = max(runners.num_healthy_remote_workers(), int(local))
    share = -(-limit // max(num_runners, 1))
    steps = min(share, fragment)
    if local:
        sampled = [sample_fragments(runners.local_env_runner, steps, with_metrics=False)]
    else:
        refs = {runner: _ask(runners, runner, steps) for runner in runners.healthy_env_runner_ids()}
        answers = on_runners(runners, take_summary, local=False)
        sampled = [one._replace(fragments=refs[one.runner]) for one in answers if one is not None]
    return sampled, num_runners - len(sampled)


def _ask(runners: Any, runner: int, steps: int, weights: Weights | None = None) -> ray.ObjectRef:
    """Have a runner sample; returns the reference to its fragments. Its next call is `take_summary`."""
    call = partial(sample_for_learner, num_timesteps=steps, weights=weights)
    return actors(runners)[runner].apply.remote(call)


def shards(sampled: Iterable[Sampled], num: int) -> list[list[tuple[Any, int]]]:
    """Share fragments out to `num` learners; a runner's all go to one, so that no episode is torn apart.

    Returns:
        Fragments and their number of steps, for each learner.
    """
    batches: list[list[tuple[Any, int]]] = [[] for _ in range(num)]
    for one in sampled:
        batches[max(one.runner - 1, 0) % num].append((one.fragments, one.steps))
    return batches


class AsyncSampler:
    """Keeps remote env runners busy as far as it is told to.

    Args:
        runners: RLlib's `EnvRunnerGroup`.
    """

    def __init__(self, runners: Any) -> None:
        self._runners = runners
        self._asked: dict[int, deque[tuple[int, ray.ObjectRef]]] = {}  # runner to steps and fragments
        self._total: Counter[int] = Counter()  # runner to the steps that it was ever asked for
        self._num_lost = 0

    @property
    def steps_in_flight(self) -> int:
        """Steps that were asked for and have not come."""
        return sum(steps for requests in self._asked.values() for steps, _ in requests)

    def take_lost(self) -> int:
        """Fragments that have died with their runners since the last call."""
        lost, self._num_lost = self._num_lost, 0
        return lost

    def request(self, fragment: int, room: int, remaining: int, weights: Weights | None) -> bool:
        """Ask the idlest runners for fragments.

        Args:
            fragment: agent steps of each.
            room: steps that may be asked for now.
            remaining: steps that the run still takes; a fragment is cut to them.
            weights: to act with. They go along, so that no runner costs this process a message of its own for
                them, and each fetches them from the learner's node, or from a neighbour, when it is its turn.

        Returns:
            Whether room was lacking while a runner had nothing to do.
        """
        self._forget_the_dead()
        # Where there is room for some only, others than last time, as each learner has runners of its own.
        runners = sorted(self._runners.healthy_env_runner_ids(), key=lambda runner: self._total[runner])
        for num_open in range(REQUESTS_IN_FLIGHT):
            for runner in runners:
                if len(self._asked.get(runner, ())) > num_open:
                    continue
                steps = min(fragment, remaining)
                if steps <= 0:
                    return False
                if steps > room:
                    return num_open == 0
                ref = _ask(self._runners, runner, steps, weights)
                call = partial(result_or_error, take_summary)
                if self._runners.foreach_env_runner_async(call, tag=_TAG, remote_worker_ids=[runner]):
                    self._asked.setdefault(runner, deque()).append((steps, ref))
                    self._total[runner] += steps
                    room, remaining = room - steps, remaining - steps
        return False

    def ready(self) -> list[Sampled]:
        """What has come since the last call; of each runner in its order.

        Raises:
            UserError: an environment breaks its contract.
        """
        results = self._runners.fetch_ready_async_reqs(tags=_TAG, timeout_seconds=0.0)
        refs = [self._asked[runner].popleft()[1] for runner, _ in results]
        self._forget_the_dead()
        for _, result in results:
            if isinstance(result, UserError):
                raise result
        answers = [(one, ref) for (_, one), ref in zip(results, refs, strict=True) if one is not None]
        self._num_lost += len(results) - len(answers)
        return [one._replace(fragments=ref) for one, ref in answers]

    def refs(self) -> list[ray.ObjectRef]:
        """Of all open requests, to wait for."""
        return list(open_requests(self._runners, _TAG))

    def discard(self) -> None:
        """Wait for all open requests and drop what they bring: it belongs to a state that is gone."""
        while refs := self.refs():
            ray.wait(refs, num_returns=len(refs), timeout=1.0)
            self._runners.fetch_ready_async_reqs(tags=_TAG, timeout_seconds=0.0)
        self._asked.clear()

    def _forget_the_dead(self) -> None:
        """RLlib drops the requests of a runner that died, which had begun with the oldest one alone."""
        still_open = Counter(open_requests(self._runners, _TAG).values())
        for runner, steps in list(self._asked.items()):
            if len(steps) > still_open[runner]:
                del self._asked[runner]
                self._num_lost += 1
