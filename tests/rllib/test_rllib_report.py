"""The report of an iteration in which some things did not happen."""

import math

from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS

from tdmpc_ray.rllib.report import Reporter


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
