"""How many updates the environment steps allow, and how many steps the updates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Agent steps that sampling may be ahead of the updates, though its runners could use more: updates that lag
# behind learn from what older networks did.
MAX_LEAD, MAX_LEAD_SHARE = 2000, 0.05


@dataclass
class Pace:
    """Counters of a run, and the ratio that holds them together.

    No update during the random steps; then as many updates as there were random steps; then `ratio` per step.

    Attributes:
        ratio: gradient updates per agent step.
        seed_steps: agent steps before the first update, at least.
        lead: agent steps that may be taken ahead of their updates, where both go on at once.
        max_lead: of these, at most so many, or MAX_LEAD_SHARE of the steps so far; None: no such bound.
        env_steps: agent steps whose transitions are in the replay.
        random_steps: of these, the ones taken before the first update.
        grad_updates: updates taken.
        is_ready: every learner has something to learn from; until then random steps go on.
        base_steps: agent steps from which on the ratio holds: the random ones, or more where it was changed.
        base_updates: updates that these allow.
        seed_per_task: random steps that each task of a set takes at least.
        task_steps: `env_steps` by task.
    """

    ratio: float
    seed_steps: int
    lead: int = 0
    max_lead: int | None = None
    env_steps: int = 0
    random_steps: int = 0
    grad_updates: int = 0
    is_ready: bool = True
    base_steps: int = 0
    base_updates: int = 0
    seed_per_task: Sequence[int] = ()
    task_steps: list[int] = field(default_factory=list)

    def add_steps(self, num: int, per_task: Sequence[int] = ()) -> None:
        """Count steps whose transitions have reached the replay.

        Args:
            num: of all tasks.
            per_task: of each, as many as there are `task_steps`.
        """
        self.env_steps += num
        self.task_steps = [sum(pair) for pair in zip(self.task_steps, per_task, strict=True)]
        if self.grad_updates == 0:
            self.random_steps = self.base_steps = self.base_updates = self.env_steps

    def updates_owed(self) -> int:
        """Gradient updates that the environment steps so far allow and that have not been taken."""
        if self.env_steps < self.seed_steps or self._is_lagging():
            return 0
        return max(self.allowed() - self.grad_updates, 0)

    def catching_up(self) -> int:
        """Of these, the ones for the random steps: the run goes on evenly once they are taken."""
        return min(self.updates_owed(), max(self.base_updates - self.grad_updates, 0))

    def _is_lagging(self) -> bool:
        """Whether a learner or a task has too little, however many steps there are."""
        is_new = self.grad_updates == 0
        counts = zip(self.task_steps, self.seed_per_task, strict=False)
        return not self.is_ready or (is_new and any(steps < least for steps, least in counts))

    def allowed(self) -> int:
        """Gradient updates that the environment steps so far allow in all."""
        return math.floor(self.base_updates + (self.env_steps - self.base_steps) * self.ratio)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        names = (
            "ratio",
            "env_steps",
            "random_steps",
            "grad_updates",
            "is_ready",
            "base_steps",
            "base_updates",
            "task_steps",
        )
        return {name: getattr(self, name) for name in names}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave. Another ratio than that run's holds from here on."""
        ratio = self.ratio
        for name, value in state.items():
            setattr(self, name, value)
        if self.task_steps and "task_steps" not in state:  # an older checkpoint; tasks of a set play alike
            num = len(self.task_steps)
            self.task_steps = [(self.env_steps + task) // num for task in range(num)]
        if self.ratio != ratio:
            self.base_steps, self.base_updates = self.env_steps, self.allowed()
            self.ratio = ratio

    @property
    def current_lead(self) -> int:
        """Agent steps that may now be taken ahead of their updates."""
        if self.max_lead is None:
            return self.lead
        return min(self.lead, max(self.max_lead, int(MAX_LEAD_SHARE * self.env_steps)))

    def room(self, pending: int) -> int:
        """Agent steps that may be begun now.

        Args:
            pending: steps that were begun and are not in the replay yet.
        """
        begun = self.env_steps + pending
        if self.grad_updates == 0:
            is_lagging = begun >= self.seed_steps and self._is_lagging()
            return self.current_lead - pending if is_lagging else self.seed_steps - begun
        paid = self.base_steps + (self.grad_updates - self.base_updates) / self.ratio
        return math.floor(paid) + self.current_lead - begun
