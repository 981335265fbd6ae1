"""A small run on the counting environment, and what its replay holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from counting_env import CountingEnv

from tdmpc_ray.rllib import TDMPC2, TDMPC2Config
from tdmpc_ray.rllib.learning.learner import AgentLearner


def counting(overrides: dict[str, Any], seed: int = 0) -> TDMPC2Config:
    config = TDMPC2Config().environment(CountingEnv)
    config.training(
        model_size="tiny",
        overrides={**overrides, "data.seed_steps": 40, "model.episodic": True},
        episode_length=20,
        steps_per_iteration=40,
    )
    return config.debugging(seed=seed, log_level="ERROR")


def learner(algo: TDMPC2) -> AgentLearner:
    return algo.learner_group._learner


def replay_rows(algo: TDMPC2) -> dict[str, np.ndarray]:
    replay = learner(algo).replay
    return {name: getattr(replay, name)[: len(replay)].copy() for name in ("obs", "action", "next_row")}


def same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[name], two[name]) for name in one)
