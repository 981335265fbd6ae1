"""An environment that draws what it observes with MuJoCo's own renderer."""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box

_WORLD = "<mujoco><worldbody><light pos='0 0 3'/><geom size='1'/></worldbody></mujoco>"


class DrawingEnv(gymnasium.Env):
    """A sphere that stays where it is."""

    action_space = Box(-1, 1, (1,))
    observation_space = Box(0, 255, (80, 80, 3), np.uint8)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode, self.model = render_mode, mujoco.MjModel.from_xml_string(_WORLD)
        self.data, self.renderer = mujoco.MjData(self.model), None

    def render(self) -> Any:
        if self.renderer is None:
            self.renderer = mujoco.Renderer(self.model, 80, 80)
        mujoco.mj_forward(self.model, self.data)
        self.renderer.update_scene(self.data)
        return self.renderer.render()

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.render(), {}

    def step(self, action: Any) -> Any:
        return self.render(), 0.0, False, False, {}
