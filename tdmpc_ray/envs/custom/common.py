"""What the custom tasks share: shapes of rewards, and the suite's environments with other rewards."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from dm_control import suite
from dm_control.rl.control import Environment

Physics = Any  # dm_control's, which has no types
Build = Callable[[np.random.RandomState], Environment]
Reward = Callable[[Physics], float]


def above(x: float, bound: float, margin: float) -> float:
    """1 from `bound` on; falls like a Gaussian to 0.1 at `margin` below it."""
    return 1.0 if x >= bound else 0.1 ** (((bound - x) / margin) ** 2)


def below(x: float, bound: float, margin: float) -> float:
    """1 up to `bound`; falls like a Gaussian to 0.1 at `margin` above it."""
    return above(-x, -bound, margin)


def ramp(x: float) -> float:
    """`x`, held within [0, 1]."""
    return min(1.0, max(0.0, x))


def height(physics: Physics, body: str) -> float:
    """Of a body's frame, in m."""
    return physics.named.data.xpos[body, "z"]


def forward_speed(physics: Physics) -> float:
    """Of the whole body's centre of mass, in m/s."""
    return physics.named.data.sensordata["torso_subtreelinvel"][0]


def spin(physics: Physics) -> float:
    """Angular momentum of the whole body about its centre of mass and the y axis."""
    return physics.named.data.subtree_angmom["torso"][1]


def rewarded(domain: str, task: str, reward: Reward) -> Build:
    """A task of the suite with another reward."""
    return functools.partial(_rewarded, domain, task, reward)


def _rewarded(domain: str, task: str, reward: Reward, random: np.random.RandomState) -> Environment:
    env = suite.load(domain, task, task_kwargs={"random": random})
    env.task.get_reward = reward
    return env
