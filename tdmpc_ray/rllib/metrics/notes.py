"""What a run tells its user about its settings, each thing once."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from tdmpc_ray.core.config import AgentConfig
from tdmpc_ray.core.nn.math import symexp

_CLIPPED = 0.01  # share of an iteration's targets from which on it is said


class OnceNotes:
    """Reads reports and says what the settings make of the task.

    Args:
        agent: the settings.

    Attributes:
        said: names of what has been said, which a checkpoint keeps.
    """

    def __init__(self, agent: AgentConfig) -> None:
        self._agent = agent
        self.said: set[str] = set()

    def lines(self, report: Mapping[str, float]) -> list[str]:
        """Lines that the report of an iteration gives rise to, but those that were given before."""
        found = {"clipped": self._clipped(report), "left out": self._left_out(report)}
        new = {name: line for name, line in found.items() if line and name not in self.said}
        self.said |= new.keys()
        return list(new.values())

    def _clipped(self, report: Mapping[str, float]) -> str:
        share, model = report.get("train/targets_clipped", 0.0), self._agent.model
        if share <= _CLIPPED:
            return ""
        low, high = symexp(torch.tensor([model.vmin, model.vmax], dtype=torch.float64)).tolist()
        return (
            f"{share:.0%} of the value targets lie outside of the bins and look alike to the agent: the bins "
            f"end at {low:,.0f} and {high:,.0f} (symexp of model.vmin={model.vmin:g} and "
            f"model.vmax={model.vmax:g}); move these two settings apart, or scale the rewards down"
        )

    def _left_out(self, report: Mapping[str, float]) -> str:
        steps = report.get("time/steps_left_out", 0.0)
        if not steps:
            return ""
        return (
            f"{steps:,.0f} steps so far are not learned from, as they came in fewer than "
            f"planner.horizon={self._agent.planner.horizon} in a row: where episodes end early, lower it, "
            "or set model.episodic to true (metric time/steps_left_out)"
        )
