"""What plans tell about a run."""

from typing import Any

import numpy as np
import pytest
import torch

from tdmpc_ray.core.planners import Plan
from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.rllib.acting.fragments import Fragment
from tdmpc_ray.rllib.acting.plan_diagnostics import EVERY, PlanDiagnostics
from tdmpc_ray.rllib.metrics.sums import merge


def plan_of(values: list[list[float]], std: float = 0.5) -> Plan:
    """For environments with the values of their elites; the planned actions are all 0.25."""
    shape = (len(values), 3, 2)
    return Plan(
        torch.zeros(len(values), 2), torch.full(shape, 0.25), torch.full(shape, std), torch.tensor(values)
    )


def fragment(episode: str, rewards: list[float], *, done: bool, task: int = 0) -> Fragment:
    obs, action = np.zeros((len(rewards) + 1, 1)), np.zeros((len(rewards), 2))
    reward = np.array(rewards, np.float32)
    return Fragment(episode, 0, obs, action, reward, terminated=False, done=done, task=task)


def test_a_plan_by_hand() -> None:
    diagnostics = PlanDiagnostics(0.9)
    diagnostics.look(plan_of([[3.0, 1.0], [5.0, 5.0]]), torch.full((2, 2), 0.75))
    means = diagnostics.take()
    assert means["plan/value"] == (3.5, 1)
    assert means["plan/value_spread"] == (pytest.approx(2**0.5 / 2), 1)
    assert means["plan/std"] == (0.5, 1)
    assert means["plan/policy_gap"] == (0.5, 1)
    assert diagnostics.take() == {}
    assert sum(diagnostics.is_due() for _ in range(3 * EVERY)) == 3


def test_the_policy_alone_foresees_nothing() -> None:
    diagnostics = PlanDiagnostics(0.9)
    diagnostics.look(plan_of([[], []]), torch.zeros(2, 2))
    diagnostics.begin(plan_of([[], []]), ["a", "b"])
    diagnostics.follow([fragment("a", [1.0], done=True)], [])
    assert set(diagnostics.take()) == {"plan/std", "plan/policy_gap"}


def test_what_was_foreseen_and_what_came_of_it() -> None:
    """Over fragments, for episodes that came to their own end."""
    diagnostics = PlanDiagnostics([0.5, 0.1])
    diagnostics.begin(plan_of([[2.0, 4.0], [7.0, 7.0], [1.0, 1.0], [9.0, 9.0]]), ["a", None, "c", "cut"])
    diagnostics.follow([fragment("a", [1.0, 1.0], done=False), fragment("b", [1.0], done=True)], [])
    assert diagnostics.take() == {}
    diagnostics.follow([fragment("a", [4.0], done=True), fragment("cut", [4.0], done=True)], ["cut"])
    assert diagnostics.take() == {"plan/foreseen": (3.0, 1), "plan/achieved": (2.5, 1)}
    diagnostics.follow([fragment("c", [1.0, 10.0], done=True, task=1)], [])
    assert diagnostics.take()["plan/achieved"] == (pytest.approx(2.0), 1)
    assert not diagnostics._episodes


def test_sums_are_merged() -> None:
    assert merge([{"a": (1.0, 2)}, {}, {"a": (3.0, 1), "b": (5.0, 1)}]) == {"a": (4.0, 3), "b": (5.0, 1)}


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("runners", [0, 1])
def test_a_run_reports_them(tiny_overrides: dict[str, Any], runners: int) -> None:
    overrides = {**tiny_overrides, "data.seed_steps": 200, "model.episodic": False}
    config = TDMPC2Config().environment("gym:Pendulum-v1").env_runners(num_env_runners=runners)
    config.training(model_size="tiny", overrides=overrides, steps_per_iteration=400)
    algo = config.debugging(seed=0, log_level="ERROR").build_algo()
    try:
        report: dict[str, float] = {}
        while "plan/achieved" not in report:
            assert algo.env_steps < 3000
            report = algo.train()["report"]
        assert 0 < report["plan/std"] <= algo.config.agent().planner.max_std
        assert 0 < report["plan/policy_gap"] <= 2
        assert report["plan/value_spread"] > 0
        assert np.isfinite([report["plan/value"], report["plan/foreseen"]]).all()
        # 200 steps with rewards of -16.3 to 0, discounted
        discount = algo.config.agent().update.discount(200)
        assert -16.3 / (1 - discount) < report["plan/achieved"] < 0
        lead = algo.config.lead if runners else 0
        assert 0 <= report["perf/weights_age"] <= lead + algo.config.weights_every + 50
        # What acting took: plans from the first update on, and the simulator's part of the time.
        a_plan = report["time/act_flops"] / (algo.env_steps - 200)
        assert a_plan == pytest.approx(algo.progress.reporter._flops_per_plan)
        assert 0 < report["time/sim_s"] < report["time/wall_s"] * max(runners, 1)
        assert 0 < report["perf/env_step_ms"] < 1e3 * report["time/sim_s"]
    finally:
        algo.stop()
