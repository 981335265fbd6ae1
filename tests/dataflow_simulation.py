"""The asynchronous dataflow as a queue of events: what `plan/sizing.py` says in formulas, played out."""

from __future__ import annotations

import heapq
from collections import deque


def simulate(
    *,
    runners: int,
    sleep_s: float,
    busy_s: float,
    update_s: float,
    ratio: float,
    cores: int,
    envs: int = 1,
    fragment: int = 25,
    seconds: float = 60.0,
) -> tuple[float, float]:
    """Agent steps and updates per second, random steps and the first quarter of the time left out.

    A runner sleeps and then computes for each step of its vector; it begins a fragment where the updates are
    not more than four fragments of each runner behind. The learner updates while updates are owed, before
    runners where cores are few, as Ray gives runners a lower priority.

    Args:
        sleep_s, busy_s: of a step of a runner's whole vector.
        update_s: of one update.
        ratio: updates per agent step.
        cores: that all of them share.
        seconds: simulated.
    """
    steps = begun = updates = 0
    lead = 2 * fragment * envs * runners
    free, waiting, learner_waits, learning = cores, deque[int](), False, False
    left = [0] * runners  # vector steps of the fragment that a runner plays
    held = set(range(runners))
    events: list[tuple[float, str, int]] = []
    now, before = 0.0, (0, 0)

    def release_held() -> None:
        nonlocal begun
        for runner in sorted(held):
            if updates / ratio + lead - begun >= fragment * envs:
                begun += fragment * envs
                left[runner] = fragment
                held.discard(runner)
                # Spread over a step at the beginning: runners do not start at the same moment.
                offset = runner / runners * sleep_s if now == 0 else 0.0
                heapq.heappush(events, (now + offset + sleep_s, "awake", runner))

    def give_cores() -> None:
        nonlocal free, learning, learner_waits
        if free and not learning and int(steps * ratio) > updates:
            free, learning = free - 1, True
            heapq.heappush(events, (now + update_s, "updated", -1))
        while free and waiting:
            free -= 1
            heapq.heappush(events, (now + busy_s, "stepped", waiting.popleft()))

    release_held()
    while events and events[0][0] < seconds:
        now, what, runner = heapq.heappop(events)
        if now < seconds / 4:
            before = steps, updates
        if what == "awake":
            waiting.append(runner)
        elif what == "updated":
            free, learning, updates = free + 1, False, updates + 1
        else:
            free += 1
            left[runner] -= 1
            if left[runner]:
                heapq.heappush(events, (now + sleep_s, "awake", runner))
            else:
                steps += fragment * envs
                held.add(runner)
        release_held()
        give_cores()
    return (steps - before[0]) / (0.75 * seconds), (updates - before[1]) / (0.75 * seconds)
