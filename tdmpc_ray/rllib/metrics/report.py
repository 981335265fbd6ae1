"""One flat dictionary of metrics per result, named as MLflow shows them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS

from tdmpc_ray.rllib.metrics.sums import ENV_STEP_MS, Means, merge
from tdmpc_ray.rllib.metrics.system_metrics import SystemMetrics

EVALUATION = {
    "episode_return_mean": "eval/return",
    "episode_return_std": "eval/return_std",
    "episode_return_min": "eval/return_min",
    "episode_return_max": "eval/return_max",
    "episode_len_mean": "eval/episode_length",
    "success_mean": "eval/success",
    "score_mean": "eval/score",
}
_SAMPLING = {"episode_return_mean": "train/return", "episode_len_mean": "train/episode_length"}


class Reporter:
    """Gathers timings and losses over an iteration.

    Args:
        num_params: trainable parameters of the model.
        flops_per_update: floating-point operations of one gradient update.
        system: reads what the node does; None: nobody asked.
        flops_per_plan: of one decision of one environment; 0: not known, and then not reported.
        seed_steps: agent steps at the beginning that nothing is planned for.
    """

    def __init__(
        self,
        num_params: int,
        flops_per_update: int,
        system: SystemMetrics | None = None,
        *,
        flops_per_plan: int = 0,
        seed_steps: int = 0,
    ) -> None:
        self._system = system
        self._num_params, self._flops_per_update = num_params, flops_per_update
        self._flops_per_plan, self._seed_steps = flops_per_plan, seed_steps
        self._seconds: dict[str, float] = defaultdict(float)
        self._losses: dict[str, float] = defaultdict(float)
        self._num_losses = 0
        self._means: Means = {}
        self.wall_s = 0.0  # of all iterations, restarts included
        self._sim_s = 0.0  # of the environments' steps, of all runners together
        self._restored = (0.0, 0.0)  # both as a checkpoint brought them
        self._spent: dict[str, float] = defaultdict(float)

    def state(self) -> dict[str, float]:
        """What goes on after a restart."""
        return {
            "wall_s": self.wall_s,
            "sim_s": self._sim_s,
            "energy_wh": self._system.energy_wh if self._system else 0.0,
        }

    def restore(self, state: Mapping[str, float]) -> None:
        """Set what `state` gave."""
        self.wall_s, self._sim_s = self._restored = (state.get("wall_s", 0.0), state.get("sim_s", 0.0))
        if self._system:
            self._system.energy_wh = state.get("energy_wh", 0.0)

    def add_time(self, phase: str, seconds: float) -> None:
        """Count `seconds` of "sample", "learn", its "batch_wait", or a "loop" of both and its "..._wait"."""
        self._seconds[phase] += seconds

    def add_losses(self, losses: dict[str, float], num_updates: int) -> None:
        """Count losses that are means over `num_updates` updates."""
        self._num_losses += num_updates
        for name, value in losses.items():
            self._losses[name] += value * num_updates

    def add_means(self, means: Mapping[str, tuple[float, int]]) -> None:
        """Count metrics that are given as a sum and the number of its terms."""
        self._sim_s += means.get(ENV_STEP_MS, (0.0, 0))[0] / 1e3
        self._means = merge([self._means, dict(means)])

    def spent(self) -> dict[str, float]:
        """What this process has spent: no checkpoint, maybe of another trial, adds to it or takes from it."""
        wall_s, sim_s = self._restored
        return {**self._spent, "wall_s": self.wall_s - wall_s, "sim_s": self._sim_s - sim_s}

    def report(
        self,
        result: dict[str, Any],
        evaluation: dict[str, float],
        counters: dict[str, int],
        new_steps: int,
        new_updates: int,
    ) -> dict[str, float]:
        """Build the report of one iteration and start the next.

        Args:
            result: RLlib's result of this iteration.
            evaluation: RLlib's names to values, empty where none ran.
            counters: `env_steps`, `env_frames`, `grad_updates`, `lost_fragments`, ... so far.
            new_steps: agent steps of this iteration.
            new_updates: gradient updates of this iteration.
        """
        sampling = result.get(ENV_RUNNER_RESULTS, {})
        report: dict[str, float] = {f"time/{name}": value for name, value in counters.items()}
        report |= self._results(sampling, evaluation)
        report |= self._costs(counters, new_steps, new_updates)
        report |= self._speeds(sampling, new_steps, new_updates)
        if self._system:
            report |= self._system.read()
        self._seconds.clear()
        self._losses.clear()
        self._means = {}
        self._num_losses = 0
        return {name: float(value) for name, value in report.items()}

    def _results(self, sampling: dict[str, Any], evaluation: dict[str, float]) -> dict[str, float]:
        """Returns, losses, and what plans looked like."""
        found = {ours: evaluation[name] for name, ours in EVALUATION.items() if name in evaluation}
        for name, value in evaluation.items():
            task, slash, metric = name.rpartition("/")
            if slash and metric in EVALUATION:
                found[f"eval/{task}/{EVALUATION[metric].removeprefix('eval/')}"] = value
        for name, ours in _SAMPLING.items():
            if name in sampling and not math.isnan(sampling[name]):  # RLlib's NaN: no episode ended
                found[ours] = sampling[name]
        found |= {f"train/{name}": total / self._num_losses for name, total in self._losses.items()}
        return found | {name: total / count for name, (total, count) in self._means.items()}

    def _costs(self, counters: dict[str, int], new_steps: int, new_updates: int) -> dict[str, float]:
        """Parameters, operations and seconds so far; counts what this iteration has spent."""
        costs = {
            "time/wall_s": self.wall_s,
            "summary/params_total": self._num_params,
            "summary/log10_params": math.log10(self._num_params),
            "time/train_flops": self._flops_per_update * counters["grad_updates"],
        }
        if new_steps:
            self._spent["env_steps"] += new_steps
        self._spent["train_flops"] += self._flops_per_update * new_updates
        if self._flops_per_plan:
            env_steps = counters["env_steps"]
            costs["time/act_flops"] = self._act_flops(env_steps)
            self._spent["act_flops"] += self._act_flops(env_steps) - self._act_flops(env_steps - new_steps)
        if self._sim_s > 0:
            costs["time/sim_s"] = self._sim_s
        return costs

    def _speeds(self, sampling: dict[str, Any], new_steps: int, new_updates: int) -> dict[str, float]:
        """Of this iteration."""
        sample_s, learn_s, loop_s = (self._seconds[phase] for phase in ("sample", "learn", "loop"))
        speeds = {}
        busy = loop_s or sample_s + learn_s
        if busy > 0 and new_steps > 0:
            speeds["perf/env_steps_per_s"] = new_steps / busy
        if sample_s > 0 and new_steps > 0:
            speeds["perf/sample_ms_per_step"] = 1e3 * sample_s / new_steps
        if loop_s > 0:
            # What holds an asynchronous run up: each is 0 where the other side is the slow one.
            speeds["perf/learner_waits"] = self._seconds["learner_wait"] / loop_s
            speeds["perf/sampler_waits"] = self._seconds["sampler_wait"] / loop_s
        if new_updates > 0:
            speeds["perf/updates_per_s"] = new_updates / learn_s
            speeds["perf/update_ms"] = 1e3 * learn_s / new_updates
            speeds["perf/batch_waits"] = self._seconds["batch_wait"] / learn_s
        if not math.isnan(seconds := float(sampling.get("rlmodule_inference_timer", math.nan))):
            speeds["perf/plan_ms"] = 1e3 * seconds
        return speeds

    def _act_flops(self, env_steps: int) -> float:
        return float(self._flops_per_plan * max(env_steps - self._seed_steps, 0))
