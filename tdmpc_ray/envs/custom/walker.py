"""Walker: backwards, on its head, lying, on one leg, flipping."""

from __future__ import annotations

from tdmpc_ray.envs.custom.common import Physics, above, below, forward_speed, height, ramp, rewarded


def _mean_height(physics: Physics, part: str) -> float:
    return (height(physics, f"left_{part}") + height(physics, f"right_{part}")) / 2


def _standing(physics: Physics) -> float:
    return (3 * above(height(physics, "torso"), 1.2, 0.6) + (1 + physics.torso_upright()) / 2) / 4


def _lying(physics: Physics) -> tuple[float, float]:
    """How low torso and thighs are."""
    thighs = _mean_height(physics, "thigh")
    return below(height(physics, "torso"), 0.08, 0.04), below(thighs, 0.08, 0.04)


def _upside_down(physics: Physics) -> float:
    feet, thighs = _mean_height(physics, "foot"), _mean_height(physics, "thigh")
    return (3 * above(feet, 1.1, 0.55) + 2 * above(thighs, 1.0, 0.5)) / 5


def _facing_down(physics: Physics) -> float:
    return (1 - physics.torso_upright()) / 2


def _backwards(physics: Physics, speed: float) -> float:
    return _standing(physics) * (5 * ramp(-forward_speed(physics) / speed) + 1) / 6


def _flip(physics: Physics, speed: float) -> float:
    return _upside_down(physics) * (5 * ramp(forward_speed(physics) / speed) + 1) / 6


def _arabesque(physics: Physics) -> float:
    stands = below(height(physics, "left_foot"), 0.08, 0.5)
    lifts = above(height(physics, "right_foot"), 1.0, 0.5)
    # The published reward wants the torso upside down here, and learned policies do so.
    return (3 * above(height(physics, "torso"), 1.0, 0.5) + stands + lifts + _facing_down(physics)) / 6


def _lie_down(physics: Physics) -> float:
    torso, thighs = _lying(physics)
    return (3 * torso + thighs + _facing_down(physics)) / 5


def _legs_up(physics: Physics) -> float:
    torso, thighs = _lying(physics)
    feet = above(_mean_height(physics, "foot"), 1.1, 0.55)
    return (3 * torso + 2 * feet + thighs + _facing_down(physics)) / 7


_REWARDS = {
    "walk_backwards": lambda physics: _backwards(physics, 1),
    "run_backwards": lambda physics: _backwards(physics, 8),
    "arabesque": _arabesque,
    "lie_down": _lie_down,
    "legs_up": _legs_up,
    "headstand": _upside_down,
    "flip": lambda physics: _flip(physics, 6),
    "backflip": lambda physics: _flip(physics, -6),
}
TASKS = {task: rewarded("walker", "walk", reward) for task, reward in _REWARDS.items()}
