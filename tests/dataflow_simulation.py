"""The asynchronous dataflow as a queue of events: what `plan/sizing.py` says in formulas, played out."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field


@dataclass
class Dataflow:
    """Runners and a learner on the cores of one machine.

    A runner sleeps and then computes for each step of its vector; it begins a fragment where the updates are
    not more than two fragments of each runner behind. The learner updates while updates are owed, before
    runners where cores are few, as Ray gives runners a lower priority.

    Attributes:
        sleep_s, busy_s: of a step of a runner's whole vector.
        update_s: of one update.
        ratio: updates per agent step.
        cores: that all of them share.
        seconds: simulated.
    """

    runners: int
    sleep_s: float
    busy_s: float
    update_s: float
    ratio: float
    cores: int
    envs: int = 1
    fragment: int = 25
    seconds: float = 60.0
    steps: int = field(default=0, init=False)
    begun: int = field(default=0, init=False)
    updates: int = field(default=0, init=False)
    learning: bool = field(default=False, init=False)
    events: list[tuple[float, str, int]] = field(default_factory=list, init=False)
    waiting: deque[int] = field(default_factory=deque, init=False)

    def __post_init__(self) -> None:
        self.free = self.cores
        self.left = [0] * self.runners  # vector steps of the fragment that a runner plays
        self.held = set(range(self.runners))
        self.lead = 2 * self.fragment * self.envs * self.runners

    def release_held(self, now: float) -> None:
        for runner in sorted(self.held):
            if self.updates / self.ratio + self.lead - self.begun >= self.fragment * self.envs:
                self.begun += self.fragment * self.envs
                self.left[runner] = self.fragment
                self.held.discard(runner)
                # Spread over a step at the beginning: runners do not start at the same moment.
                offset = runner / self.runners * self.sleep_s if now == 0 else 0.0
                heapq.heappush(self.events, (now + offset + self.sleep_s, "awake", runner))

    def give_cores(self, now: float) -> None:
        if self.free and not self.learning and int(self.steps * self.ratio) > self.updates:
            self.free, self.learning = self.free - 1, True
            heapq.heappush(self.events, (now + self.update_s, "updated", -1))
        while self.free and self.waiting:
            self.free -= 1
            heapq.heappush(self.events, (now + self.busy_s, "stepped", self.waiting.popleft()))

    def take(self, now: float, what: str, runner: int) -> None:
        if what == "awake":
            self.waiting.append(runner)
        elif what == "updated":
            self.free, self.learning, self.updates = self.free + 1, False, self.updates + 1
        else:
            self.free += 1
            self.left[runner] -= 1
            if self.left[runner]:
                heapq.heappush(self.events, (now + self.sleep_s, "awake", runner))
            else:
                self.steps += self.fragment * self.envs
                self.held.add(runner)

    def play(self) -> tuple[float, float]:
        """Agent steps and updates per second, random steps and the first quarter of the time left out."""
        before = (0, 0)
        self.release_held(0.0)
        while self.events and self.events[0][0] < self.seconds:
            now, what, runner = heapq.heappop(self.events)
            if now < self.seconds / 4:
                before = self.steps, self.updates
            self.take(now, what, runner)
            self.release_held(now)
            self.give_cores(now)
        counted = 0.75 * self.seconds
        return (self.steps - before[0]) / counted, (self.updates - before[1]) / counted
