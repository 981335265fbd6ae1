"""Images instead of state: stacked camera frames of a simulator task."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import ArrayLike, NDArray

from tdmpc_ray.envs.wrappers import SimulatorEnv

SIZE = 64  # pixels, in height and width
FRAMES = 3  # in a stack
Images = NDArray[np.uint8]


class PixelEnv(gymnasium.Wrapper, gymnasium.utils.RecordConstructorArgs):
    """Observes the last frames, oldest first, one per agent step, as published: (9, 64, 64) uint8.

    At the start of an episode the first frame fills the stack.
    """

    env: SimulatorEnv

    def __init__(self, env: SimulatorEnv) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)
        self.observation_space = Box(0, 255, (3 * FRAMES, SIZE, SIZE), np.uint8)
        self._frames: deque[Images] = deque(maxlen=FRAMES)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Images, dict[str, Any]]:
        """Start an episode."""
        _, info = self.env.reset(seed=seed, options=options)
        self._frames.extend([self._frame()] * FRAMES)
        return np.concatenate(self._frames), info

    def step(self, action: ArrayLike) -> tuple[Images, float, bool, bool, dict[str, Any]]:
        """Apply an action (A,) in [-1, 1]."""
        _, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(self._frame())
        return np.concatenate(self._frames), reward, terminated, truncated, info

    def _frame(self) -> Images:
        return self.env.frame(SIZE).transpose(2, 0, 1)
