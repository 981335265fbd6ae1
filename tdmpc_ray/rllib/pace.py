"""How many updates the environment steps allow, and how many steps the updates."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Pace:
    """Counters of a run, and the ratio that holds them together.

    No update during the random steps; then as many updates as there were random steps; then `ratio` per step.

    Attributes:
        ratio: gradient updates per agent step.
        seed_steps: agent steps before the first update, at least.
        lead: agent steps that may be taken ahead of their updates, where both go on at once.
        env_steps: agent steps whose transitions are in the replay.
        random_steps: of these, the ones taken before the first update.
        grad_updates: updates taken.
        is_ready: every learner has something to learn from; until then random steps go on.
    """

    ratio: float
    seed_steps: int
    lead: int = 0
    env_steps: int = 0
    random_steps: int = 0
    grad_updates: int = 0
    is_ready: bool = True

    def add_steps(self, num: int) -> None:
        """Count steps whose transitions have reached the replay."""
        self.env_steps += num
        if self.grad_updates == 0:
            self.random_steps = self.env_steps

    def updates_owed(self) -> int:
        """Gradient updates that the environment steps so far allow and that have not been taken."""
        if self.env_steps < self.seed_steps or not self.is_ready:
            return 0
        allowed = self.random_steps + (self.env_steps - self.random_steps) * self.ratio
        return max(math.floor(allowed) - self.grad_updates, 0)

    def room(self, pending: int) -> int:
        """Agent steps that may be begun now.

        Args:
            pending: steps that were begun and are not in the replay yet.
        """
        begun = self.env_steps + pending
        if self.grad_updates == 0:
            is_lagging = begun >= self.seed_steps and not self.is_ready
            return self.lead - pending if is_lagging else self.seed_steps - begun
        paid = self.random_steps + (self.grad_updates - self.random_steps) / self.ratio
        return math.floor(paid) + self.lead - begun
