"""Cheetah: backwards, on one foot, jumping, lying, flipping."""

from __future__ import annotations

from tdmpc_ray.envs.custom.common import Physics, above, below, forward_speed, height, ramp, rewarded, spin

_FRONT, _REAR = "ffoot", "bfoot"


def _balanced(physics: Physics, foot: str) -> float:
    """Torso and `foot` high, and standing still."""
    raised = (height(physics, "torso") + height(physics, foot)) / 2
    return (5 * above(raised, 1.2, 0.6) + ramp(2 - 2 * abs(forward_speed(physics)))) / 6


def _raised(physics: Physics, foot: str) -> float:
    """`foot` high, and the torso."""
    return (3 * above(height(physics, foot), 1.2, 0.6) + 2 * above(height(physics, "torso"), 1.2, 0.6)) / 5


def _run_backwards(physics: Physics) -> float:
    return ramp(-forward_speed(physics) / 8)


def _run_on(physics: Physics, raised: str) -> float:
    return _raised(physics, raised) * (5 * ramp(forward_speed(physics) / 6) + 1) / 6


def _jump(physics: Physics) -> float:
    return (_balanced(physics, _REAR) + _balanced(physics, _FRONT)) / 2


def _lie_down(physics: Physics) -> float:
    feet = (height(physics, _FRONT) + height(physics, _REAR)) / 2
    return (3 * ramp(2 - 4 * height(physics, "torso")) + ramp(2 - 4 * feet)) / 4


def _legs_up(physics: Physics) -> float:
    return (5 * below(height(physics, "torso"), 0.25, 0.125) + _raised(physics, _REAR)) / 6


def _flip(physics: Physics) -> float:
    return (2 * ramp(spin(physics) / 8) + ramp(forward_speed(physics) / 10)) / 3


def _flip_backwards(physics: Physics) -> float:
    return (2 * ramp(-spin(physics) / 8) + ramp(-forward_speed(physics) / 8)) / 3


_REWARDS = {
    "run_backwards": _run_backwards,
    "run_front": lambda physics: _run_on(physics, raised=_REAR),
    "run_back": lambda physics: _run_on(physics, raised=_FRONT),
    "jump": _jump,
    "stand_front": lambda physics: _balanced(physics, _REAR),
    "stand_back": lambda physics: _balanced(physics, _FRONT),
    "lie_down": _lie_down,
    "legs_up": _legs_up,
    "flip": _flip,
    "flip_backwards": _flip_backwards,
}
TASKS = {task: rewarded("cheetah", "run", reward) for task, reward in _REWARDS.items()}
