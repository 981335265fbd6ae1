"""Pendulum: spinning."""

from __future__ import annotations

from tdmpc_ray.envs.custom.common import Physics, ramp, rewarded


def _spin(physics: Physics) -> float:
    return ramp(abs(physics.angular_velocity().item()) / 9)


TASKS = {"spin": rewarded("pendulum", "swingup", _spin)}
