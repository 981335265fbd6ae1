"""What a run has done so far, and what of it is told."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS

from tdmpc_ray.rllib.acting.fragments import Sampled
from tdmpc_ray.rllib.learning.work import Work
from tdmpc_ray.rllib.loop.fault_window import FaultWindow
from tdmpc_ray.rllib.loop.pace import Pace
from tdmpc_ray.rllib.metrics.notes import OnceNotes
from tdmpc_ray.rllib.metrics.report import Reporter

_OF_STEPS = ("time/env_steps", "time/env_frames")


@dataclass
class Counters:
    """What went wrong, or was left out.

    Attributes:
        lost_fragments: with the env runners that held them.
        runner_restarts: of env runners.
        env_faults: of environments.
        skipped_updates: as loss or gradient were not finite.
        steps_left_out: transitions that are in no sequence.
    """

    lost_fragments: int = 0
    runner_restarts: int = 0
    env_faults: int = 0
    skipped_updates: int = 0
    steps_left_out: int = 0


class Progress:
    """Counters and metrics, fed by a loop.

    Args:
        config: of the algorithm.
        reporter: makes the reports.
        metrics: RLlib's logger.

    Attributes:
        pace: steps, updates, and the ratio between them.
        counters: of what was lost.
        cloned: updates that have imitated demonstrations, of `cloning_total`.
        updates_before: of the networks that the run began with, by which runners know new weights.
        notes: lines for the user, which the next result takes along.
    """

    def __init__(self, config: Any, reporter: Reporter, metrics: Any) -> None:
        data, tasks = config.agent().data, config.tasks
        self.pace = Pace(
            data.utd_ratio,
            config.num_seed_steps,
            config.lead,
            config.max_lead,
            seed_per_task=data.seed_steps_per_task([task.episode_length for task in tasks]),
            task_steps=[0] * max(len(tasks), 1),
        )
        self.counters, self.reporter = Counters(), reporter
        self.updates_before = 0
        self.cloned = self.cloning_total = 0
        self.notes: list[str] = []
        self._is_offline = config.has_dataset
        self._metrics, self._action_repeats = metrics, config.action_repeats
        self._fault_window = FaultWindow(config.max_env_faults)
        self._once = OnceNotes(config.agent())

    @property
    def cloning_left(self) -> int:
        """Updates that are to imitate demonstrations before the first step."""
        return max(self.cloning_total - self.cloned, 0)

    def count(self, work: Work) -> None:
        """Take what the learners have done."""
        self.pace.add_steps(work.added, work.per_task)
        self.pace.is_ready = work.is_ready
        self.pace.grad_updates += work.num_updates
        self.counters.lost_fragments += work.lost
        self.counters.skipped_updates += work.losses.num_skipped
        self.counters.steps_left_out = work.left_out
        self.notes += work.notes
        if work.num_updates:
            self.reporter.add_time("learn", work.seconds)
            self.reporter.add_time("batch_wait", work.batch_wait_s)
        self.reporter.add_means({name: (value, 1) for name, value in work.validation.items()})
        self.reporter.add_losses(work.losses.means, work.losses.num_updates)
        for name, value in work.losses.means.items():
            self._metrics.log_value((LEARNER_RESULTS, DEFAULT_MODULE_ID, name), value, window=1)

    def observe(self, sampled: Sequence[Sampled]) -> None:
        """Take what env runners tell beside their fragments.

        Raises:
            UserError: there are more faults of environments than `max_env_faults` allows.
        """
        if metrics := [part.metrics for part in sampled if part.metrics is not None]:
            self._metrics.aggregate(metrics, key=ENV_RUNNER_RESULTS)
        for part in sampled:
            self.count_faults(part.faults, part.steps)
            behind = self.updates_before + self.pace.grad_updates - part.updates
            age = {"perf/weights_age": (float(behind), 1)} if part.updates else {}
            self.reporter.add_means({**(part.means or {}), **age})

    def count_faults(self, faults: Sequence[str], steps: int) -> None:
        """Count faults of environments within `steps` agent steps.

        Raises:
            UserError: there are more of them than `max_env_faults` allows.
        """
        self.counters.env_faults += len(faults)
        self._fault_window.add(faults, steps)

    def report(
        self, result: dict[str, Any], evaluation: dict[str, float], new_steps: int, new_updates: int
    ) -> tuple[dict[str, int], dict[str, float], list[str]]:
        """End an iteration.

        Args:
            result: RLlib's.
            evaluation: see `Reporter.report`.
            new_steps: agent steps of the iteration.
            new_updates: gradient updates of the iteration.

        Returns:
            All counters, the report, and lines for the user.
        """
        frames = sum(map(operator.mul, self.pace.task_steps, self._action_repeats))
        steps = {"env_steps": self.pace.env_steps, "env_frames": frames}
        counters = {**steps, "grad_updates": self.pace.grad_updates, **dataclasses.asdict(self.counters)}
        report = self.reporter.report(result, evaluation, counters, new_steps, new_updates)
        if self._is_offline:  # no steps are something else than none
            report = {name: value for name, value in report.items() if name not in _OF_STEPS}
        if self.cloning_total and self.pace.env_steps == 0:
            report["bc/updates"] = float(self.cloned)
        notes, self.notes = self.notes, []
        return counters, report, [*notes, *self._fault_window.lines(), *self._once.lines(report)]

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "pace": self.pace.state(),
            "counters": dataclasses.asdict(self.counters),
            "reporter": self.reporter.state(),
            "said": sorted(self._once.said),
            "updates_before": self.updates_before,
            "cloned": self.cloned,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.pace.restore(state["pace"])
        self.counters = Counters(**state["counters"])
        self.reporter.restore(state["reporter"])
        self._once.said = set(state["said"])
        self.updates_before = state["updates_before"]
        self.cloned = state.get("cloned", self.cloning_total)
