"""DeepMind Control Suite: 2 control steps per agent step, 500 agent steps, flat float32 observations."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tdmpc_ray.envs.spaces import ActionScale, FloatArray
from tdmpc_ray.envs.task import TaskInfo
from tdmpc_ray.envs.wrappers import SimulatorEnv

# The linear-quadratic task draws the model's stiffness and damping, too: a new seed means a new model.
_RANDOM_MODELS = {"lqr"}


class DMControlEnv(SimulatorEnv):
    """One task of the suite, by its catalog entry."""

    def __init__(self, info: TaskInfo, seed: int | None, render_mode: str | None) -> None:
        self.info = info
        self._domain, self._task = info.simulator_id.split("/")
        self._random = np.random.RandomState(seed)
        self._load()
        spec = self._env.action_spec()
        self._scale = ActionScale(spec.minimum, spec.maximum)
        self.camera_id = 2 if self._domain == "quadruped" else 0
        super().__init__(
            info,
            observation_size=sum(int(np.prod(s.shape)) for s in self._env.observation_spec().values()),
            action_size=spec.shape[0],
            control_timestep=self._env.control_timestep(),
            seed=seed,
            render_mode=render_mode,
            scale=self._scale,
        )
        sizes = {name: int(np.prod(s.shape)) for name, s in self._env.observation_spec().items()}
        parts = [{"path": [name], "size": size} for name, size in sizes.items()]
        self.observation_space.meaning = {"kind": "vector", "parts": parts}  # type: ignore[attr-defined]

    def _load(self) -> None:
        with warnings.catch_warnings():
            # Importing dm_control looks for a display, which nothing here needs.
            warnings.filterwarnings("ignore", message=".*DISPLAY environment variable")
            from dm_control import suite

            from tdmpc_ray.envs import custom

        if self.info.is_custom:
            self._env = custom.load(self._domain, self._task, self._random)
        else:
            self._env = suite.load(self._domain, self._task, task_kwargs={"random": self._random})

    def _reset_task(self, seed: int | None) -> tuple[FloatArray, dict[str, Any]]:
        if seed is not None:
            # The task holds this very generator, so seeding it in place reseeds the task.
            self._random.seed(seed)
            if self._domain in _RANDOM_MODELS:
                self.close()
                self._load()
        return _flatten(self._env.reset().observation), {}

    def _step_task(self, action: ArrayLike) -> tuple[FloatArray, float, bool, dict[str, Any]]:
        control = self._scale(action)
        reward = 0.0
        for _ in range(self.info.action_repeat):
            time_step = self._env.step(control)
            reward += time_step.reward
            if time_step.last():
                break
        return _flatten(time_step.observation), float(reward), time_step.last(), {}

    def _physics(self) -> tuple[Any, Any]:
        return self._env.physics.model.ptr, self._env.physics.data.ptr


def _flatten(observation: Mapping[str, Any]) -> FloatArray:
    """Concatenate in the suite's order; scalars count 1. Shape (O,)."""
    return np.concatenate([np.ravel(value) for value in observation.values()], dtype=np.float32)
