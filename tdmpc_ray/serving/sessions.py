"""What a server keeps of each client between two decisions, and decisions for many of them at once."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc_ray.core.nn.compiled import compiles
from tdmpc_ray.core.saved_agent import PlanningAgent
from tdmpc_ray.errors import UserError

_ACTIVE_S = 1.0
_T = TypeVar("_T")


@dataclass
class Session:
    """One client's episode.

    Attributes:
        lock: held by a request until it is answered, so that no batch has two of one session.
        prev_mean: of the last plan, (H, A); None before the first.
        generator: of its noise.
        task_id: that it plays, for a set of tasks.
        last_used: seconds of the clock.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    prev_mean: Tensor | None = None
    generator: torch.Generator | None = None
    task_id: int | None = None
    last_used: float = 0.0


class Sessions:
    """The sessions by name; the least recently used one goes where they are too many or idle for too long.

    Args:
        limit: how many are kept.
        idle_s: seconds after which one that is not used is forgotten.
        clock: seconds.
    """

    def __init__(self, limit: int, idle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._idle_s, self._clock = limit, idle_s, clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, name: str) -> Session:
        """The session of this name; a new one where there is none."""
        now = self._clock()
        while self._sessions and next(iter(self._sessions.values())).last_used < now - self._idle_s:
            self._sessions.popitem(last=False)
        session = self._sessions.setdefault(name, Session())
        session.last_used = now
        self._sessions.move_to_end(name)
        if len(self._sessions) > self._limit:
            self._sessions.popitem(last=False)
        return session

    def task_id(self, name: str) -> int | None:
        """The task that a session plays; None where there is no such session, or only one task."""
        session = self._sessions.get(name)
        return None if session is None else session.task_id

    def active(self) -> int:
        """How many have asked within the last second."""
        since = self._clock() - _ACTIVE_S
        used = (session.last_used for session in reversed(self._sessions.values()))
        return sum(1 for _ in takewhile(lambda last: last >= since, used))

    def end(self, name: str) -> bool:
        """Forget a session; whether there was one."""
        return self._sessions.pop(name, None) is not None


async def to_the_end(work: Coroutine[Any, Any, _T]) -> _T:
    """Await `work`; where the one who waits is cancelled, that is raised once the work is done."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


@dataclass(frozen=True)
class Decision:
    """An answer to one observation.

    Attributes:
        action: in [-1, 1], of the session's task, (A,).
        planning_ms: time that its batch took.
        batch: observations that were planned for together.
    """

    action: np.ndarray
    planning_ms: float
    batch: int


class BatchPlanner:
    """Decides for several sessions at once; call it from one thread only, which CUDA graphs belong to.

    Args:
        agent: what decides.
        max_batch: sessions at once.
    """

    def __init__(self, agent: PlanningAgent, max_batch: int) -> None:
        self._agent, self._max_batch = agent, max_batch
        planner = agent.config.planner
        # Each size is compiled for itself, so that only some are used; elsewhere filling up costs time.
        self._fills_up = planner.method in ("mppi", "cem") and compiles(planner.compile, agent.device)

    def check(self, obs: Sequence[object], task_id: int | None) -> Tensor:
        """An observation as given by a client, as the model takes it.

        Raises:
            UserError: it is none of the task's.
        """
        description = self._agent.description
        shape, _ = description.shapes(task_id)
        name = description.tasks[task_id] if task_id is not None else description.task or "this agent"
        try:
            array = np.asarray(obs)
        except ValueError:
            raise UserError("obs is a list of lists of different lengths") from None
        if array.dtype.kind not in "iuf":
            raise UserError("obs holds something that is not a number")
        if array.shape != shape:
            needed = f"{shape[0]} numbers" if len(shape) == 1 else f"shape {shape}"
            given = f"{array.shape[0]} numbers" if array.ndim == 1 else f"shape {array.shape}"
            raise UserError(f"obs has {given}, {name} needs {needed}")
        tensor = torch.as_tensor(array.astype(np.float32))
        if not tensor.isfinite().all():
            raise UserError("obs holds NaN, or a number beyond float32")
        return tensor if task_id is None else F.pad(tensor, (0, description.obs_shape[0] - shape[0]))

    def warm_up(self) -> None:
        """Decide once with each size of a batch that is compiled for itself; elsewhere with the smallest."""
        sizes = {self._size(num) for num in range(1, self._max_batch + 1)} if self._fills_up else {1}
        for size in sorted(sizes):
            task_id = 0 if self._agent.description.tasks else None
            sessions = [Session(task_id=task_id) for _ in range(size)]
            obs = torch.zeros(self._agent.networks.obs_shape)
            for _ in range(
                3
            ):  # torch.compile records CUDA graphs in the second call, and replays in the third
                self([(session, obs) for session in sessions])

    def __call__(self, jobs: Sequence[tuple[Session, Tensor]]) -> list[Decision]:
        """Decide for each session by its observation, and keep its plan."""
        started = time.perf_counter()
        agent, num = self._agent, len(jobs)
        noises, plans = [], []
        for session, _ in jobs:
            if session.prev_mean is None or session.generator is None:
                session.prev_mean, session.generator = agent.no_plan(1)[0], agent.generator()
            plans.append(session.prev_mean)
            noises.append(agent.noise(session.generator))
        rows = [*range(num), *[0] * (self._size(num) - num)]
        task_ids = [session.task_id for session, _ in jobs if session.task_id is not None]
        action, mean = agent.decide(
            torch.stack([jobs[row][1] for row in rows]),
            torch.stack([plans[row] for row in rows]),
            [noises[row] for row in rows],
            [task_ids[row] for row in rows] if task_ids else None,
        )
        actions = action.cpu().numpy()
        for (session, _), plan in zip(jobs, mean, strict=False):
            session.prev_mean = plan.clone()  # not a view, which would keep the whole batch
        ms = 1e3 * (time.perf_counter() - started)
        lengths = [agent.description.shapes(session.task_id)[1] for session, _ in jobs]
        return [Decision(actions[row, :length], ms, num) for row, length in enumerate(lengths)]

    def _size(self, num: int) -> int:
        """What a batch of `num` is filled up to: the next power of two."""
        return min(1 << (num - 1).bit_length(), self._max_batch) if self._fills_up else num
