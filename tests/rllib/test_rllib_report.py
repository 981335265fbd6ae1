"""The report of an iteration in which some things did not happen."""

import math

import pytest
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS

from tdmpc_ray.rllib.metrics.report import Reporter
from tdmpc_ray.rllib.metrics.sums import ENV_STEP_MS


def test_what_did_not_happen_is_left_out() -> None:
    """RLlib gives NaN for means over nothing: no episode ended, or no plan was made."""
    names = ("episode_return_mean", "episode_len_mean", "rlmodule_inference_timer")
    reporter = Reporter(num_params=1000, flops_per_update=10)
    report = reporter.report(
        {ENV_RUNNER_RESULTS: dict.fromkeys(names, math.nan)}, {}, {"grad_updates": 3}, 0, 0
    )
    assert set(report) == {
        "time/grad_updates",
        "time/wall_s",
        "time/train_flops",
        "summary/params_total",
        "summary/log10_params",
    }
    report = reporter.report({ENV_RUNNER_RESULTS: dict.fromkeys(names, 0.5)}, {}, {"grad_updates": 3}, 0, 0)
    assert (report["perf/plan_ms"], report["train/return"]) == (500.0, 0.5)


def test_planning_and_simulation_are_counted_beside_the_updates() -> None:
    reporter = Reporter(100, 10, flops_per_plan=7, seed_steps=20)
    reporter.wall_s = 5.0
    reporter.add_time("learn", 1.0)
    reporter.add_means({ENV_STEP_MS: (300.0, 30)})
    report = reporter.report({}, {}, {"env_steps": 30, "grad_updates": 3}, new_steps=30, new_updates=3)
    assert (report["time/act_flops"], report["time/train_flops"]) == (70.0, 30.0)  # random steps plan nothing
    assert (report["time/sim_s"], report[ENV_STEP_MS]) == (0.3, 10.0)
    assert reporter.spent() == {
        "env_steps": 30,
        "train_flops": 30,
        "act_flops": 70,
        "wall_s": 5.0,
        "sim_s": 0.3,
    }
    # Another process, at the checkpoint of another trial: totals are that one's, what it spends is its own.
    member = Reporter(100, 10, flops_per_plan=7, seed_steps=20)
    member.restore(reporter.state())
    member.wall_s += 1.0
    member.add_time("learn", 1.0)
    member.add_means({ENV_STEP_MS: (100.0, 10)})
    report = member.report({}, {}, {"env_steps": 40, "grad_updates": 5}, new_steps=10, new_updates=2)
    assert (report["time/act_flops"], report["time/train_flops"]) == (140.0, 50.0)
    assert (report["time/wall_s"], report["time/sim_s"]) == (6.0, pytest.approx(0.4))
    spent = {"env_steps": 10, "train_flops": 20, "act_flops": 70, "wall_s": 1.0, "sim_s": 0.1}
    assert member.spent() == pytest.approx(spent)
