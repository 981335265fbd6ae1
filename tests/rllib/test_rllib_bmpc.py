"""BMPC on the dataflow of all agents: plans travel with steps, and are made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counting import learner
from counting_env import CountingEnv

from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.algorithms import BMPC, BMPCConfig

SEED_STEPS = 60


def config(overrides: dict[str, Any], **changes: Any) -> BMPCConfig:
    made = BMPCConfig().environment(CountingEnv).debugging(seed=0, log_level="ERROR")
    own = {"data.seed_steps": SEED_STEPS, "model.episodic": True, "update.reanalyze_batch": 4}
    settings = {"model_size": "tiny", "episode_length": 20, "steps_per_iteration": 40}
    return made.training(**settings, overrides={**overrides, **own, **changes})


def policy_of(algo: BMPC) -> list[torch.Tensor]:
    return [p.detach().clone() for p in learner(algo)._rl_module.networks.policy.parameters()]


def test_plans_travel_with_steps_and_the_policy_waits_for_them(
    local_ray: None, tmp_path: Path, tiny_overrides: dict[str, Any]
) -> None:
    algo = config(tiny_overrides, **{"update.reanalyze_every": 0}).build_algo()
    try:
        before = policy_of(algo)
        algo.train()
        replay = learner(algo).replay
        followed = replay.next_row[: len(replay)] >= 0
        assert (replay.extra[: len(replay)][followed] == [0, 1]).all(), "nothing was planned at random"
        while algo.grad_updates < SEED_STEPS:
            assert all(map(torch.equal, policy_of(algo), before))
            result = algo.train()
        result = algo.train()
        assert not all(map(torch.equal, policy_of(algo), before))
        assert all(
            np.isfinite(result["report"][f"train/{name}"]) for name in ("loss/pi", "loss/value", "pi_scale")
        )
        planned = replay.extra[SEED_STEPS + 30 : len(replay) - 1]
        planned = planned[planned[:, 1] > 0]
        assert len(planned) > 10
        cfg = learner(algo)._agent.planner
        assert ((cfg.min_std <= planned[:, 1]) & (planned[:, 1] <= cfg.max_std)).all()
        assert (np.abs(planned[:, 0]) <= 1).all()
        path = algo.save_to_path(tmp_path / "checkpoint")
        extra, updates = replay.extra.copy(), int(learner(algo)._updater.updates)
    finally:
        algo.stop()
    again = BMPC.from_checkpoint(path)
    try:
        assert np.array_equal(learner(again).replay.extra, extra)
        assert int(learner(again)._updater.updates) == updates
    finally:
        again.stop()


def test_reanalysis_writes_into_the_replay(local_ray: None, tiny_overrides: dict[str, Any]) -> None:
    algo = config(tiny_overrides, **{"update.reanalyze_every": 10}).build_algo()
    try:
        for _ in range(3):
            algo.train()
        replay = learner(algo).replay
        random = np.arange(len(replay)) < SEED_STEPS
        changed = (replay.extra[: len(replay)] != [0, 1]).any(1) & (replay.next_row[: len(replay)] >= 0)
        assert (changed & random).sum() > 3, "steps that were taken at random have plans now"
        assert replay.changed.any()
    finally:
        algo.stop()


def test_what_is_not_bmpcs_is_refused(tiny_overrides: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"update\.bc_coef is of algorithm tdmpc2"):
        config(tiny_overrides, **{"update.bc_coef": 0.1}).validate()
    with pytest.raises(UserError, match=r"bmpc learns from steps that its own planner chose"):
        config(tiny_overrides, **{"data.demonstrations": "episodes"}).validate()
    with pytest.raises(UserError, match=r"update\.reanalyze_every must not be negative"):
        config(tiny_overrides, **{"update.reanalyze_every": -1}).validate()
