"""What an env runner's plans look like, in sums that travel with its fragments.

They tell a bad run's reason from its curves: a planner that cannot decide (`plan/std`, `plan/value_spread`),
a policy that does not follow it (`plan/policy_gap`), a model that promises what the environment does not keep
(`plan/foreseen` above `plan/achieved`), or weights that come late (`perf/weights_age`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdmpc_ray.core.nn.readback import Readback
from tdmpc_ray.core.planners import Plan
from tdmpc_ray.rllib.metrics.sums import Means, merge

EVERY = 10  # plans; looking at each would cost a tenth of a small one


class PlanDiagnostics:
    """Looks at every tenth plan, and at the value that each episode's first plan foresees.

    Args:
        discount: per step; of each task, for a set of tasks.
    """

    def __init__(self, discount: float | Sequence[float]) -> None:
        self._discounts = [discount] if isinstance(discount, float) else list(discount)
        self._plans = 0
        self._means: Means = {}
        self._looks: list[tuple[list[str], Readback]] = []
        self._begun: list[tuple[Sequence[str | None], Readback]] = []
        # Episode to what was foreseen, its discounted rewards so far, and the discount of the next one.
        self._episodes: dict[str, tuple[float, float, float]] = {}

    def is_due(self) -> bool:
        """Whether to look at this plan; counts it."""
        self._plans += 1
        return self._plans % EVERY == 1

    def look(self, plan: Plan, policy_action: Tensor) -> None:
        """Take a plan of N environments in, and the policy's mean action beside it, (N, A)."""
        means = {
            "plan/std": plan.std[:, 0].mean(),
            "plan/policy_gap": (plan.mean[:, 0] - policy_action).abs().mean(),
        }
        if plan.values.shape[1] > 1:
            means["plan/value"] = plan.values.mean()
            means["plan/value_spread"] = plan.values.std(1).mean()
        self._looks.append((list(means), Readback(torch.stack(list(means.values())))))

    def begin(self, plan: Plan, episodes: Sequence[str | None]) -> None:
        """Note the value that is foreseen for episodes at their start; None stands for one that goes on."""
        if plan.values.shape[1] > 0:
            self._begun.append((episodes, Readback(plan.values.mean(1))))

    def follow(self, fragments: Iterable[Any], dropped: Iterable[str]) -> None:
        """Compare what was foreseen with what episodes achieve.

        Args:
            fragments: new ones (`fragments.Fragment`), of each episode in their order.
            dropped: episodes that tell nothing, because they did not come to their own end.
        """
        for episodes, foreseen_of in self._begun:
            values = foreseen_of.value().tolist()
            pairs = zip(episodes, values, strict=True)
            self._episodes |= {episode: (value, 0.0, 1.0) for episode, value in pairs if episode is not None}
        self._begun = []
        for episode in dropped:
            self._episodes.pop(episode, None)
        for fragment in fragments:
            if fragment.episode_id not in self._episodes:
                continue
            foreseen, achieved, weight = self._episodes.pop(fragment.episode_id)
            discount = self._discounts[fragment.task if len(self._discounts) > 1 else 0]
            steps = len(fragment.reward)
            achieved += weight * float(fragment.reward @ discount ** np.arange(steps))
            if fragment.done:
                self._add({"plan/foreseen": (foreseen, 1), "plan/achieved": (achieved, 1)})
            else:
                self._episodes[fragment.episode_id] = (foreseen, achieved, weight * discount**steps)

    def take(self) -> Means:
        """What has been seen since the last call."""
        for names, values in self._looks:
            self._add({name: (value, 1) for name, value in zip(names, values.value().tolist(), strict=True)})
        self._looks = []
        means, self._means = self._means, {}
        return means

    def _add(self, means: Means) -> None:
        self._means = merge([self._means, means])
