"""Calls to the learner, which lives in this process or in an actor of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import ray

from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.env_runner import caught

T = TypeVar("T")
# The second call waits at the learner while the answer to the first is on its way here.
CALLS_IN_FLIGHT = 2


class LearnerLink:
    """One call at a time and waited for (`call`), or queued (`start`, `ready`).

    Args:
        learner_group: RLlib's.
    """

    def __init__(self, learner_group: Any) -> None:
        self._group = learner_group
        self._open: deque[ray.ObjectRef] = deque()
        self._done: list[Any] = []  # of a learner in this process

    def call(self, method: Callable[..., T], **kwargs: Any) -> T:
        """Call a method of the learner and wait for it; it comes after what was started before.

        Raises:
            UserError: of the method.
            RuntimeError: the learner's process is gone.
        """
        results = list(self._group.foreach_learner(partial(caught, partial(method, **kwargs))))
        if not results:
            raise RuntimeError("the learner's process has died")
        value = results[0].get()
        if not results[0].ok:
            raise getattr(value, "cause", None) or value
        return _value(value)

    @property
    def num_open(self) -> int:
        """Calls whose results have not been taken."""
        return len(self._open) + len(self._done)

    @property
    def is_busy(self) -> bool:
        """Whether nothing more should be started."""
        return self.num_open >= CALLS_IN_FLIGHT

    def start(self, method: Callable[..., Any], **kwargs: Any) -> None:
        """Call a method without waiting, where the learner is remote."""
        if self._group.is_local:
            self._done.append(self.call(method, **kwargs))
        else:
            (actor,) = self._group._worker_manager.actors().values()
            self._open.append(actor.apply.remote(partial(caught, partial(method, **kwargs))))

    def ready(self, timeout: float | None = 0.0) -> list[Any]:
        """Results of the calls that are done, in their order.

        Args:
            timeout: seconds to wait for the first; None: wait for all.

        Raises:
            UserError: of a method.
            RuntimeError: the learner's process is gone.
        """
        done, self._done = self._done, []
        while self._open and ray.wait([self._open[0]], timeout=timeout)[0]:
            try:
                done.append(_value(ray.get(self._open.popleft())))
            except ray.exceptions.RayActorError as error:
                raise RuntimeError(f"the learner's process has died: {error}") from None
            timeout = None if timeout is None else 0.0
        return done

    def refs(self) -> list[ray.ObjectRef]:
        """Of all open calls, to wait for."""
        return list(self._open)


def _value(value: Any) -> Any:
    if isinstance(value, UserError):
        raise value
    return value
