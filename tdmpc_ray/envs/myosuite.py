"""MyoSuite: a hand of 39 muscles; 100 agent steps, success where the task says solved, no terminations."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike

from tdmpc_ray.envs.extras import require_extra
from tdmpc_ray.envs.spaces import FloatArray
from tdmpc_ray.envs.task import TaskInfo
from tdmpc_ray.envs.wrappers import SimulatorEnv

_CAMERA = "hand_side_inter"


class MyoSuiteEnv(SimulatorEnv):
    """One MyoSuite task, by its catalog entry. `info["success"]`, 0.0 or 1.0, is the current state's."""

    def __init__(self, info: TaskInfo, seed: int | None, render_mode: str | None) -> None:
        require_extra(info)
        # Importing and building print a banner and warn of registering twice.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("myosuite")

            # Its own limits of 50 to 200 steps and its terminations do not count, as in the published runs.
            env: Any = gymnasium.make(info.simulator_id, disable_env_checker=True).unwrapped
        self._env = env
        self._env.seed(seed)
        self.camera_id = self._env.sim.sim.model.camera(_CAMERA).id
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
            self._env.seed(seed)  # `reset(seed=...)` would leave the goal to chance
        observation, _ = self._env.reset()
        return np.asarray(observation, np.float32), {"success": 0.0}

    def _step_task(self, action: ArrayLike) -> tuple[FloatArray, float, bool, dict[str, Any]]:
        observation, reward, _, _, info = self._env.step(np.array(action, np.float32))
        success = {"success": float(info["solved"])}
        return np.asarray(observation, np.float32), float(reward), False, success

    def _physics(self) -> tuple[Any, Any]:
        physics = self._env.sim.sim
        return physics.model.ptr, physics.data.ptr
