"""Lift the cube: a task of ManiSkill 2 that its third version no longer has, in the scene of PickCube.

The published runs took ManiSkill 2's. Here the arm, the cube and where it lies are those of ManiSkill 3's
PickCube, and the reward is our own, so success compares with published curves, and returns do not.
"""

from __future__ import annotations

from typing import Any

import torch
from mani_skill.envs.tasks.tabletop.pick_cube import PickCubeEnv
from mani_skill.utils.structs.pose import Pose

_HEIGHT = 0.2  # metres that the cube must rise, as in ManiSkill 2
_STATIC = 0.2  # rad/s, of the arm's fastest joint


class LiftCubeEnv(PickCubeEnv):
    """Success: the cube 20 cm above the table while the arm stands still. Reward 0 to 4 a step."""

    def _initialize_episode(self, env_idx: torch.Tensor, options: dict[str, Any]) -> None:
        super()._initialize_episode(env_idx, options)
        above = self.cube.pose.p.clone()
        above[:, 2] += _HEIGHT
        self.goal_site.set_pose(Pose.create_from_pq(above))  # seen in films alone

    def _get_obs_extra(self, info: dict[str, Any]) -> dict[str, torch.Tensor]:
        hand, cube = self.agent.tcp_pose, self.cube.pose
        return {"tcp_pose": hand.raw_pose, "obj_pose": cube.raw_pose, "tcp_to_obj_pos": cube.p - hand.p}

    def evaluate(self) -> dict[str, torch.Tensor]:
        lifted = self.cube.pose.p[:, 2] - self.cube_half_size
        return {
            "success": (lifted >= _HEIGHT) & self.agent.is_static(_STATIC),
            "is_grasped": self.agent.is_grasping(self.cube),
            "lifted": lifted,
        }

    def compute_dense_reward(self, obs: Any, action: torch.Tensor, info: dict[str, Any]) -> torch.Tensor:
        distance = torch.linalg.norm(self.cube.pose.p - self.agent.tcp_pose.p, dim=1)
        grasped = info["is_grasped"].float()
        rising = (info["lifted"] / _HEIGHT).clamp(0.0, 1.0)
        return 1 - torch.tanh(5 * distance) + grasped * (1 + rising) + info["success"].float()

    def compute_normalized_dense_reward(
        self, obs: Any, action: torch.Tensor, info: dict[str, Any]
    ) -> torch.Tensor:
        return self.compute_dense_reward(obs, action, info) / 4
