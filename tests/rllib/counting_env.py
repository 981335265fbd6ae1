"""An environment whose every number says where it belongs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np


class CountingEnv(gym.Env):
    """Observation (episode, step, last action); reward step + 0.5; episodes of 3 to 12 steps.

    Even episodes terminate, odd ones are truncated. Every step taken is appended to a file of its own under
    `config["log"]`, so that a test can compare what was played with what was stored.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
        name = int.from_bytes(os.urandom(6), "big")
        self._log = (Path(config["log"]) / f"{name}.txt").open("a", buffering=1) if "log" in config else None

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._episode = int.from_bytes(os.urandom(3), "big")  # exact in float32, unique across processes
        self._length = 3 + self._episode // 2 % 10
        self._step = 0
        return self._obs(0.0), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = self._step + 0.5
        if self._log:
            self._log.write(f"{self._episode} {self._step}\n")
        self._step += 1
        over = self._step == self._length
        terminates = self._episode % 2 == 0
        return self._obs(float(action[0])), reward, over and terminates, over and not terminates, {}

    def _obs(self, action: float) -> np.ndarray:
        return np.array([self._episode, self._step, action], np.float32)
