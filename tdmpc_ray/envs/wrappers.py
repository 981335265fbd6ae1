"""What the simulators' adapters share: the base class with action repeat and time limit, rendering."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc_ray.envs.contract import Contract
from tdmpc_ray.envs.layout import vector_layout
from tdmpc_ray.envs.spaces import ActionScale, FloatArray, action_box
from tdmpc_ray.envs.task import TaskInfo
from tdmpc_ray.errors import UserError

FRAME_SIZE = 384


def check_seed(seed: int | None) -> int | None:
    """Return the seed as an int (or None).

    Raises:
        UserError: outside of what numpy's legacy generator, which both simulators use, accepts.
    """
    if seed is not None and not 0 <= seed < 2**32:
        raise UserError(f"seed {seed} is out of range: use a whole number from 0 to {2**32 - 1}")
    return None if seed is None else int(seed)


class SimulatorEnv(gymnasium.Env):
    """A simulator task as a Gymnasium environment: action repeat, summed reward, time limit as truncation.

    Subclasses implement `_reset_task`, `_step_task` and `_physics`.
    """

    camera_id = 0
    flip_frame = False

    def __init__(
        self,
        info: TaskInfo,
        *,
        observation_size: int,
        action_size: int,
        control_timestep: float,
        seed: int | None,
        render_mode: str | None,
        scale: ActionScale | None = None,
    ) -> None:
        self.info = info
        layout = vector_layout(observation_size)
        self.observation_space = layout.space
        self.action_space = action_box(action_size, seed, scale)
        self.render_mode = render_mode
        fps = round(1 / (control_timestep * info.action_repeat))
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": fps}
        self._steps_left = 0
        self._contract = Contract(info.name, layout)
        self._renderers: dict[int, Any] = {}  # by the size of their frames

    def _reset_task(self, seed: int | None) -> tuple[FloatArray, dict[str, Any]]:
        """Start an episode, reseeding first where a seed is given; return observation (O,) and info."""
        raise NotImplementedError

    def _step_task(self, action: ArrayLike) -> tuple[FloatArray, float, bool, dict[str, Any]]:
        """Apply one action `action_repeat` times; return observation (O,), reward, ended early, info."""
        raise NotImplementedError

    def _physics(self) -> tuple[Any, Any]:
        """Return MuJoCo's model and data, for rendering."""
        raise NotImplementedError

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Start an episode. A seed restarts the task's own random stream; without one, the stream goes on."""
        super().reset(seed=seed)
        observation, info = self._reset_task(check_seed(seed))
        self._contract.reset(observation)
        self._steps_left = self.info.episode_length
        return observation, info

    def step(self, action: ArrayLike) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Apply an action (A,) in [-1, 1] for one agent step."""
        if self._steps_left <= 0:
            raise gymnasium.error.ResetNeeded("call reset() before step(): no episode is running")
        observation, reward, ended, info = self._step_task(action)
        self._contract.step(observation, reward, ended)
        self._steps_left = 0 if ended else self._steps_left - 1
        return observation, reward, False, self._steps_left == 0, info

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Return a frame (384, 384, 3) uint8, or None where no render mode was asked for."""
        return None if self.render_mode is None else self.frame(FRAME_SIZE)

    def frame(self, size: int) -> NDArray[np.uint8]:
        """What the task's camera sees, (size, size, 3)."""
        if size not in self._renderers:
            from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

            model, data = self._physics()
            model.vis.global_.offwidth = max(model.vis.global_.offwidth, size)
            model.vis.global_.offheight = max(model.vis.global_.offheight, size)
            renderer = MujocoRenderer(model, data, width=size, height=size, camera_id=self.camera_id)
            # A context that outlives the interpreter's modules ends in tracebacks at exit.
            atexit.register(renderer.close)
            self._renderers[size] = renderer
        frame = self._renderers[size].render("rgb_array")
        return np.ascontiguousarray(frame[::-1] if self.flip_frame else frame)

    def close(self) -> None:
        """Free the OpenGL contexts, if there are any."""
        for renderer in self._renderers.values():
            atexit.unregister(renderer.close)
            renderer.close()
        self._renderers.clear()


@contextmanager
def numpy_state(random: np.random.RandomState) -> Iterator[None]:
    """Let code that draws from numpy's global generator draw from `random` instead."""
    outside = np.random.get_state()
    np.random.set_state(random.get_state())
    try:
        yield
    finally:
        random.set_state(np.random.get_state())
        np.random.set_state(outside)
