"""Meta-World: 2 control steps per agent step, 100 agent steps, a new goal each episode, goal observed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tdmpc_ray.envs.spaces import FloatArray
from tdmpc_ray.envs.task import SPARSE, TaskInfo
from tdmpc_ray.envs.wrappers import SimulatorEnv, numpy_state

_CORNER2 = 2
_CORNER2_POSITION = (0.75, 0.075, 0.7)
_NO_ACTION = np.zeros(4, np.float32)


class MetaWorldEnv(SimulatorEnv):
    """One Meta-World task, by its catalog entry. `info["success"]`, 0.0 or 1.0, is the current state's."""

    camera_id = _CORNER2
    # This camera is mounted upside down.
    flip_frame = True

    def __init__(self, info: TaskInfo, seed: int | None, render_mode: str | None) -> None:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE

        # The constructor resets once. Its seed is fixed, so that only ours decides, and given, as without
        # one it draws from numpy's global generator.
        self._env: Any = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{info.simulator_id}-goal-observable"](seed=0)
        # Frozen, every reset would repeat the constructor's goal.
        self._env._freeze_rand_vec = False
        self._env.model.cam_pos[_CORNER2] = _CORNER2_POSITION
        self._random = np.random.RandomState(seed)
        super().__init__(
            info,
            observation_size=self._env.observation_space.shape[0],
            action_size=self._env.action_space.shape[0],
            control_timestep=self._env.dt,
            seed=seed,
            render_mode=render_mode,
        )

    def _reset_task(self, seed: int | None) -> tuple[FloatArray, dict[str, Any]]:
        if seed is not None:
            self._random.seed(seed)
        # The goal comes from numpy's global generator, which belongs to the user and to other environments.
        with numpy_state(self._random):
            observation, _ = self._env.reset()
        # As in the published experiments: one inner step without action, its result dropped.
        self._env.step(_NO_ACTION)
        return observation.astype(np.float32), {"success": 0.0}

    def _step_task(self, action: ArrayLike) -> tuple[FloatArray, float, bool, dict[str, Any]]:
        control = np.array(action, np.float32)
        reward = 0.0
        for _ in range(self.info.action_repeat):
            observation, inner_reward, _, _, info = self._env.step(control)
            reward += inner_reward
        success = float(info["success"])
        reward = success - 1 if self.info.reward == SPARSE else float(reward)
        return observation.astype(np.float32), reward, False, {"success": success}

    def _physics(self) -> tuple[Any, Any]:
        return self._env.model, self._env.data
