"""What follows from an algorithm's config for how sampling and learning keep step."""

from __future__ import annotations

import math
from typing import Any

from tdmpc_ray.rllib.acting.fragments import BESIDE_STEPS, LEAST_STEPS, REQUESTS_IN_FLIGHT
from tdmpc_ray.rllib.loop.pace import MAX_LEAD


class PaceSettings:
    """A part of `AgentAlgorithmConfig`."""

    agent: Any
    asynchronous: bool | None
    num_env_runners: int
    num_envs_per_env_runner: int
    num_learners: int
    rollout_fragment_length: Any
    sample_lead: int | None

    @property
    def is_asynchronous(self) -> bool:
        """Whether sampling and learning go on at once."""
        return self.num_env_runners > 0 if self.asynchronous is None else self.asynchronous

    @property
    def shares_networks(self) -> bool:
        """Whether the one env runner acts with the very parameters that the one learner changes."""
        return self.num_env_runners == 0 and self.num_learners == 0

    @property
    def lead(self) -> int:
        """Agent steps that asynchronous sampling may be ahead of the updates."""
        return self.lead_of(self.get_rollout_fragment_length() * self.num_envs_per_env_runner)

    def lead_of(self, fragment: int) -> int:
        """The same, with fragments of so many agent steps."""
        lead = REQUESTS_IN_FLIGHT * fragment * max(self.num_env_runners, 1)
        return max(lead if self.sample_lead is None else self.sample_lead, self._least_lead)

    @property
    def max_lead(self) -> int | None:
        """What bounds `lead`, see `Pace`; None: nothing, as somebody has set it."""
        return max(MAX_LEAD, self._least_lead) if self.sample_lead is None else None

    @property
    def _least_lead(self) -> int:
        """Steps that are too few for a whole update cannot be paid for: with less, both sides could wait."""
        fragment = self.get_rollout_fragment_length() * self.num_envs_per_env_runner
        return fragment + math.ceil(1 / self.agent().data.utd_ratio)

    def get_rollout_fragment_length(self, worker_index: int = 0) -> int:
        """Agent steps of each environment per request to an env runner.

        Where nobody sets it: one in turns, so that updates follow every step, as published; at once,
        the fewer the more runners and environments there are (see BESIDE_STEPS), and more where the main
        process could not keep up (see `FragmentLength`).
        """
        if self.rollout_fragment_length != "auto":
            return int(self.rollout_fragment_length)
        if not self.is_asynchronous:
            return 1
        steps = max(BESIDE_STEPS // max(self.num_env_runners, 1), LEAST_STEPS)
        return max(1, steps // self.num_envs_per_env_runner)
