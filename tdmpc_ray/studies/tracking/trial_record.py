"""What the tracker remembers of a trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class TrialRecord:
    """What has to outlive a restart about one trial."""

    params: dict[str, Any]  # as at its first start: MLflow's parameters never change
    started: int  # ms
    end: str | None = None  # FINISHED or FAILED; None while it runs
    env_steps: int = 0
    dropped: int = 0
    final_return: float | None = None
    enough: str = ""  # why it ended before its last step, by the study's own wish
    changed: dict[str, float] = field(default_factory=dict)  # parameters that a scheduler has changed
    spent: dict[str, float] = field(default_factory=dict)  # by its process, so far
    spent_before: dict[str, float] = field(default_factory=dict)  # by its earlier processes

    def spend(self, spent: Mapping[str, float], report: Mapping[str, float], *, is_own: bool) -> None:
        """Take in what its process has spent so far.

        Args:
            spent: by the process, by the names of `report`'s totals after `time/`.
            report: the totals, which went on from the checkpoint that the process began with.
            is_own: that checkpoint was this trial's. Then earlier processes spent at least what it held: the
                last result of one that was stopped may never have come.
        """
        if is_own and not self.spent:
            for name, value in spent.items():
                held = report.get(f"time/{name}", value) - value
                self.spent_before[name] = max(self.spent_before.get(name, 0.0), held)
        self.spent = dict(spent)

    def all_spent(self) -> dict[str, float]:
        """What the trial has really spent, whatever checkpoints it went on from."""
        names = {**self.spent_before, **self.spent}
        return {name: self.spent_before.get(name, 0.0) + self.spent.get(name, 0.0) for name in names}

    def take_changes(self, params: Mapping[str, Any]) -> list[tuple[str, int, float]]:
        """Numbers that a scheduler has changed since the last call: name, agent steps, value.

        At the first change of one, the value that it began with comes before.
        """
        points: list[tuple[str, int, float]] = []
        for name, value in params.items():
            first: Any = self.params.get(name)
            if not (_is_number(value) and _is_number(first)) or value == self.changed.get(name, first):
                continue
            if name not in self.changed:
                points.append((name, 0, first))
            self.changed[name] = value
            points.append((name, self.env_steps, value))
        return points


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
