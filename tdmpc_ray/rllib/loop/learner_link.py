"""Calls to the learners: one in this process, or one or several in actors of their own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import ray

from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.acting.actors import actors
from tdmpc_ray.rllib.acting.env_runner import result_or_error

T = TypeVar("T")
# The second call waits at the learner while the answer to the first is on its way here.
CALLS_IN_FLIGHT = 2


class LearnerLink:
    """One call at a time and waited for (`call`, `call_each`), or queued (`start`, `ready`).

    Every call goes to all learners, and all get their calls in one order: their updates wait for each other.

    Args:
        learner_group: RLlib's.
        timeout_s: seconds without an answer after which learners in processes of their own are given up;
            None or 0: never.
    """

    def __init__(self, learner_group: Any, timeout_s: float | None = None) -> None:
        self._group, self._timeout_s = learner_group, timeout_s or None
        self._heard_at = 0.0  # the last answer, or the first call after all were answered
        self._open: deque[_Call] = deque()
        self._done: list[list[Any]] = []  # of a learner in this process

    @property
    def num_learners(self) -> int:
        """At least 1: the one in this process."""
        return max(len(self._group), 1)

    def call(self, method: Callable[..., T], **kwargs: Any) -> T:
        """Call a method of all learners alike; what the first one gives. Otherwise as `call_each`."""
        return self.call_each(method, [kwargs] * self.num_learners)[0]

    def call_each(self, method: Callable[..., T], kwargs_of_each: Sequence[Mapping[str, Any]]) -> list[T]:
        """Call a method of every learner and wait for all; it comes after what was started before.

        Args:
            kwargs_of_each: of every learner, in the order of their ranks.

        Returns:
            What each gives, in the same order.

        Raises:
            UserError: of the method, as soon as one learner raises it.
            RuntimeError: a learner's process is gone, or does not answer.
        """
        if self._group.is_local:
            (kwargs,) = kwargs_of_each
            return [method(self._group._learner, **kwargs)]  # RLlib's way takes as long as a small update
        self.settle()
        call = self._send(method, kwargs_of_each)
        self._take(call, wait=True)
        return call.results

    @property
    def num_open(self) -> int:
        """Calls whose results have not been taken."""
        return len(self._open) + len(self._done)

    @property
    def is_busy(self) -> bool:
        """Whether nothing more should be started."""
        return self.num_open >= CALLS_IN_FLIGHT

    def start(self, method: Callable[..., Any], kwargs_of_each: Sequence[Mapping[str, Any]]) -> None:
        """As `call_each`, but without waiting where the learners are remote."""
        if self._group.is_local:
            self._done.append(self.call_each(method, kwargs_of_each))
        else:
            self._open.append(self._send(method, kwargs_of_each))

    def ready(self, *, wait: bool = False) -> list[list[Any]]:
        """Results of the calls that all learners have answered, in their order.

        Args:
            wait: until all calls are answered.

        Raises:
            UserError: of a method.
            RuntimeError: a learner's process is gone, or does not answer.
        """
        done, self._done = self._done, []
        self._take_open(wait=wait)
        while self._open and not self._open[0].pending:
            done.append(self._open.popleft().results)
        return done

    def settle(self) -> None:
        """Wait until all calls are answered, for `ready` to give the results: what RLlib asks waits for ever.

        Raises:
            UserError: of a method.
            RuntimeError: a learner's process is gone, or does not answer.
        """
        self._take_open(wait=True)

    def refs(self) -> list[ray.ObjectRef]:
        """Of all answers that `ready` has not seen, to wait for."""
        return [ref for call in self._open for ref in call.pending]

    def _send(self, method: Callable[..., Any], kwargs_of_each: Sequence[Mapping[str, Any]]) -> _Call:
        if not self.refs():
            self._heard_at = time.monotonic()
        pairs = zip(self._actors(), kwargs_of_each, strict=True)
        return _Call(
            [actor.apply.remote(partial(result_or_error, partial(method, **kw))) for actor, kw in pairs]
        )

    def _take_open(self, *, wait: bool) -> None:
        for call in list(self._open):
            try:
                self._take(call, wait=wait)
            except UserError:
                self._open.remove(call)
                raise

    def _take(self, call: _Call, *, wait: bool) -> None:
        try:
            while call.pending:
                if call.take(self._patience_s() if wait else 0.0):
                    self._heard_at = time.monotonic()
                elif not wait or self._patience_s() == 0:
                    break
        except ray.exceptions.RayActorError as error:
            self._kill()
            raise RuntimeError(f"the learner's process has died: {error}") from None
        if call.pending and self._patience_s() == 0:
            self._kill()
            raise RuntimeError(
                f"a learner has not answered for {self._timeout_s:,g} s: it hangs, or needs more time; where "
                "updates are that slow, lower updates_per_call or raise learner_timeout_s"
            )

    def _patience_s(self) -> float | None:
        """Seconds until the learners are given up; None: they never are."""
        if self._timeout_s is None:
            return None
        return max(self._heard_at + self._timeout_s - time.monotonic(), 0.0)

    def _kill(self) -> None:
        """The others may wait for a learner in an update, and could not be shut down in order."""
        for actor in self._actors():
            ray.kill(actor)

    def _actors(self) -> list[Any]:
        return list(actors(self._group).values())


class _Call:
    """A call of all learners, whose answers come one by one.

    Attributes:
        pending: answers that have not come, and the rank of each one's learner.
        results: of all learners.
    """

    def __init__(self, refs: Sequence[ray.ObjectRef]) -> None:
        self.pending = {ref: rank for rank, ref in enumerate(refs)}
        self.results: list[Any] = [None] * len(refs)

    def take(self, timeout_s: float | None) -> bool:
        """Wait for the next answer and take it; returns whether one came.

        Raises:
            UserError: it is one.
        """
        done, _ = ray.wait(list(self.pending), num_returns=1, timeout=timeout_s)
        if not done:
            return False
        value = ray.get(done[0])
        self.results[self.pending.pop(done[0])] = value
        if isinstance(value, UserError):
            raise value
        return True
