"""An environment that fails when it is told to."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box


def hang_in_c(library: type[ctypes.CDLL]) -> None:
    """Lock a mutex twice; no signal ends that. `PyDLL` keeps the interpreter's lock, `CDLL` does not."""
    lock, mutex = library(None).pthread_mutex_lock, ctypes.create_string_buffer(64)
    lock(mutex)
    lock(mutex)


class FailingEnv(gymnasium.Env):
    """Observation (episode, step) of this object; reward step; episodes of 10 steps.

    Args:
        config: `kind`, what happens at `step` of an episode (0: its reset). With `once`, a file, only while
            that is not there; it is written then. With `episode`, only in that one of this object's.
    """

    built = closed = 0

    def __init__(self, config: dict[str, Any]) -> None:
        type(self).built += 1
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = Box(-1, 1, (1,), np.float32)
        self._config, self._episode, self._step = config, -1, 0
        self.seeds: list[int | None] = []
        if config.get("kind") == "build" and self._is_due(0):
            raise OSError("no licence")

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self._episode, self._step = self._episode + 1, 0
        return self._played()[0], {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        self._step += 1
        obs, reward = self._played()
        return obs, reward, False, self._step == 10, {}

    def close(self) -> None:
        type(self).closed += 1
        if self._config.get("kind") == "close":
            raise RuntimeError("cannot close")

    def _played(self) -> tuple[Any, Any]:
        obs: Any = np.array([self._episode, self._step], np.float32)
        reward: Any = float(self._step)
        if not self._is_due(self._step):
            return obs, reward
        kind = self._config["kind"]
        if kind in ("raise", "close"):
            raise RuntimeError("the motor is hot\nand more")
        if kind == "sleep":
            time.sleep(1000)
        if kind == "stubborn":
            try:
                time.sleep(1000)
            except Exception:
                time.sleep(1000)
        if kind in ("CDLL", "PyDLL"):
            hang_in_c(getattr(ctypes, kind))
        obs = {"nan": obs * np.nan, "shape": obs[:1], "words": "far"}.get(kind, obs)
        return obs, {"none": None, "inf": np.inf}.get(kind, reward)

    def _is_due(self, step: int) -> bool:
        config = self._config
        if config.get("step", 0) != step or config.get("episode", self._episode) != self._episode:
            return False
        if "once" in config:
            try:  # of several processes, one
                Path(config["once"]).touch(exist_ok=False)
            except FileExistsError:
                return False
        return "kind" in config
