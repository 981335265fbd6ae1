"""Ball in cup: spinning the ball around the cup."""

from __future__ import annotations

import numpy as np
from dm_control.rl.control import Environment
from dm_control.suite import ball_in_cup

from tdmpc_ray.envs.custom.common import Physics, ramp


class _Spin(ball_in_cup.BallInCup):
    def initialize_episode(self, physics: Physics) -> None:
        """Put the ball into the cup in nine of ten episodes."""
        anywhere = self.random.uniform(0, 1) < 0.1
        while True:
            physics.named.data.qpos["ball_x"] = self.random.uniform(-0.2, 0.2)
            physics.named.data.qpos["ball_z"] = self.random.uniform(0.2, 0.5)
            physics.after_reset()
            if physics.data.ncon == 0 and (anywhere or physics.in_target()):
                return

    def get_reward(self, physics: Physics) -> float:
        """The ball far from the cup, and fast."""
        if physics.in_target():
            return 0.0
        distance = float(np.linalg.norm(physics.ball_to_target()))
        speed = float(np.linalg.norm(physics.named.data.qvel[["ball_x", "ball_z"]]))
        return (ramp(distance / 0.5) + 2 * ramp(speed / 6)) / 3


def _spin(random: np.random.RandomState) -> Environment:
    physics = ball_in_cup.Physics.from_xml_string(*ball_in_cup.get_model_and_assets())
    return Environment(physics, _Spin(random=random), time_limit=20, control_timestep=0.02)


TASKS = {"spin": _spin}
