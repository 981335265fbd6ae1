"""Settings of the planner that change over a run."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from tdmpc_ray.core.agents import find_agent
from tdmpc_ray.core.config import AgentConfig, PlannerConfig, agent_config
from tdmpc_ray.core.planners import PlanNoise
from tdmpc_ray.errors import UserError

BOTH = {
    "planner.horizon": {"linear": [1, 3, 1000]},
    "planner.min_std": {"linear": ["0.5", 0.05, "1e3"]},
}


def test_numbers_follow_a_schedule_and_stay_at_its_end() -> None:
    planner = agent_config("tiny", "light", BOTH).planner
    assert (planner.horizon, planner.min_std) == (3, 0.05), "what is asked without a step is the end"
    assert [planner.at(step).horizon for step in (0, 499, 500, 999, 1000, 10**9)] == [1, 1, 2, 2, 3, 3]
    assert planner.at(500).min_std == pytest.approx(0.275)
    assert planner.at(2000).min_std == 0.05
    plain = agent_config("tiny", "light").planner
    assert plain.at(7) is plain


def test_a_schedule_is_kept_and_can_be_replaced() -> None:
    cfg = agent_config("tiny", "light", BOTH)
    values = json.loads(json.dumps(cfg.to_dict()))
    assert values["planner"]["horizon"] == {"linear": [1, 3, 1000]}
    again = AgentConfig.from_dict(values)
    assert again == cfg
    assert hash(again.planner) == hash(cfg.planner)
    fixed = cfg.with_settings({"planner.horizon": 5})
    assert fixed.planner.at(0).horizon == fixed.planner.horizon == 5
    assert fixed.planner.at(0).min_std == 0.5


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("planner.horizon", {"linear": [1, 3]}, "is no schedule: give {linear: [first, last, agent steps]}"),
        ("planner.horizon", {"cosine": [1, 3, 10]}, "is no schedule: give {linear:"),
        ("planner.horizon", {"linear": [1.5, 3, 10]}, "planner.horizon=1.5 is not a valid value"),
        ("planner.horizon", {"linear": [5, 3, 10]}, "planner.horizon can only grow"),
        ("planner.horizon", {"linear": [0, 3, 10]}, "planner.horizon must be positive"),
        ("planner.min_std", {"linear": [3, 0.05, 10]}, "planner.min_std must not exceed planner.max_std"),
        ("planner.min_std", {"linear": [1, 0.05, 0]}, "its agent steps must be positive"),
        ("planner.momentum", {"linear": [None, 0.05, 9]}, "is no schedule"),
        ("planner.method", {"linear": [1, 0.05, 5]}, "planner.method cannot change over a run"),
        ("update.lr", {"linear": [1, 0.05, 5]}, "update.lr cannot change over a run"),
    ],
)
def test_what_is_no_schedule_is_refused_by_name(key: str, value: Any, said: str) -> None:
    with pytest.raises(UserError) as error:
        agent_config("tiny", "light", {key: value})
    assert said in str(error.value)


def test_schedules_must_fit_together_at_every_bend() -> None:
    bends = {"planner.min_std": {"linear": [0.1, 1, 1000]}, "planner.max_std": {"linear": [0.2, 2, 100_000]}}
    with pytest.raises(UserError, match=r"planner\.min_std must not exceed planner\.max_std"):
        agent_config("tiny", overrides=bends)


def test_a_plan_of_a_shorter_horizon_stands_in_one_of_the_full_length() -> None:
    cfg = agent_config("tiny", "light", {"planner.horizon": {"linear": [1, 4, 100]}})
    agent = find_agent("tdmpc2")
    networks = agent.make_networks((5,), 2, cfg.model, learns=False)
    z, prev_mean = torch.rand(3, cfg.model.latent_dim), torch.rand(3, 4, 2)
    for step, horizon in ((0, 1), (50, 2), (100, 4)):
        now = cfg.planner.at(step)
        noise = PlanNoise.sample(networks, now, 3, torch.Generator().manual_seed(0))
        plan = agent.decide(networks, z, prev_mean, now, noise, discount=0.99, explore=True)
        short = agent.decide(networks, z, prev_mean[:, :horizon], now, noise, discount=0.99, explore=True)
        assert plan.mean.shape == plan.std.shape == prev_mean.shape
        assert not plan.mean[:, horizon:].any()
        assert bool(plan.std[:, :horizon].all())
        if horizon == 4:
            assert torch.equal(plan.action, short.action)


def test_momentum_is_that_of_the_method_unless_it_is_set() -> None:
    kept = {method: PlannerConfig(method=method).kept_of_mean for method in ("mppi", "cem")}
    assert kept == {"mppi": 0.0, "cem": 0.1}
    assert agent_config("tiny", overrides={"planner.momentum": "0.3"}).planner.kept_of_mean == 0.3
