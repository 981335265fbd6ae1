"""Hopper: backwards, flipping."""

from __future__ import annotations

from tdmpc_ray.envs.custom.common import Physics, forward_speed, ramp, rewarded, spin


def _hop_backwards(physics: Physics) -> float:
    return ramp(-forward_speed(physics)) if 0.6 <= physics.height() <= 2 else 0.0


_REWARDS = {
    "hop_backwards": _hop_backwards,
    "flip": lambda physics: ramp((spin(physics) - 2.5) / 2.5),
    "flip_backwards": lambda physics: ramp((-spin(physics) - 2.5) / 2.5),
}
TASKS = {task: rewarded("hopper", "hop", reward) for task, reward in _REWARDS.items()}
