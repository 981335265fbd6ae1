"""Calls to the learners: one in this process, or one or several in actors of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import ray

from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.env_runner import caught

T = TypeVar("T")
# The second call waits at the learner while the answer to the first is on its way here.
CALLS_IN_FLIGHT = 2


class LearnerLink:
    """One call at a time and waited for (`call`, `call_each`), or queued (`start`, `ready`).

    Every call goes to all learners, and all get their calls in one order: their updates wait for each other.

    Args:
        learner_group: RLlib's.
    """

    def __init__(self, learner_group: Any) -> None:
        self._group = learner_group
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
            RuntimeError: a learner's process is gone.
        """
        if self._group.is_local:
            (kwargs,) = kwargs_of_each
            return [method(self._group._learner, **kwargs)]  # RLlib's way takes as long as a small update
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
            RuntimeError: a learner's process is gone.
        """
        done, self._done = self._done, []
        for call in list(self._open):
            try:
                self._take(call, wait=wait)
            except UserError:
                self._open.remove(call)
                raise
        while self._open and not self._open[0].pending:
            done.append(self._open.popleft().results)
        return done

    def refs(self) -> list[ray.ObjectRef]:
        """Of all answers that `ready` has not seen, to wait for."""
        return [ref for call in self._open for ref in call.pending]

    def _send(self, method: Callable[..., Any], kwargs_of_each: Sequence[Mapping[str, Any]]) -> _Call:
        pairs = zip(self._actors(), kwargs_of_each, strict=True)
        return _Call([actor.apply.remote(partial(caught, partial(method, **kw))) for actor, kw in pairs])

    def _take(self, call: _Call, *, wait: bool) -> None:
        try:
            call.take(wait=wait)
        except ray.exceptions.RayActorError as error:
            # The others may wait for it in an update, and could not be shut down in order.
            for actor in self._actors():
                ray.kill(actor)
            raise RuntimeError(f"the learner's process has died: {error}") from None

    def _actors(self) -> list[Any]:
        return list(self._group._worker_manager.actors().values())


class _Call:
    """A call of all learners, whose answers come one by one.

    Attributes:
        pending: answers that have not come, and the rank of each one's learner.
        results: of all learners.
    """

    def __init__(self, refs: Sequence[ray.ObjectRef]) -> None:
        self.pending = {ref: rank for rank, ref in enumerate(refs)}
        self.results: list[Any] = [None] * len(refs)

    def take(self, *, wait: bool) -> None:
        """Take the answers that are there; `wait` for all, or until one is an error."""
        while self.pending:
            done, _ = ray.wait(list(self.pending), num_returns=1, timeout=None if wait else 0.0)
            if not done:
                break
            value = ray.get(done[0])
            self.results[self.pending.pop(done[0])] = value
            if isinstance(value, UserError):
                raise value
