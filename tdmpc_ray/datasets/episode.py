"""An episode as it was recorded, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdmpc_ray.errors import UserError
from tdmpc_ray.observations import VECTOR, ObsArray, map_parts, parts_of, stack


@dataclass(frozen=True)
class Episode:
    """T steps.

    Attributes:
        source: the file, and where in it, for messages.
        obs: as the agent observes them, (T + 1, *obs_shape); of images with a vector beside them, the images.
        action: in [-1, 1], (T, A).
        reward: (T,).
        terminated: whether it ended in a terminal state.
        vector: beside images, (T + 1, V); None: there is none.
        task: its name; empty where the file does not say it.
        success: at its end; None where the file does not say it.
    """

    source: str
    obs: NDArray[np.generic]
    action: NDArray[np.float32]
    reward: NDArray[np.float32]
    terminated: bool = False
    vector: NDArray[np.float32] | None = None
    task: str = ""
    success: bool | None = None

    def __len__(self) -> int:
        """Steps."""
        return len(self.action)

    def check(self) -> None:
        """Refuse what no environment gives.

        Raises:
            UserError: lengths that do not fit, actions out of their range, numbers that are none.
        """
        steps = len(self)
        parts = {"obs": (self.obs, steps + 1), "reward": (self.reward, steps)}
        if self.vector is not None:
            parts[VECTOR] = (self.vector, steps + 1)
        if steps == 0 or self.action.ndim != 2:
            raise UserError(f"{self.source} has actions of shape {self.action.shape}: give (steps, numbers)")
        for name, (values, length) in parts.items():
            if len(values) != length:
                raise UserError(
                    f"{self.source} has {len(values):,} of '{name}' for {steps:,} actions: give {length:,}"
                )
        arrays: dict[str, NDArray[Any]] = {name: values for name, (values, _) in parts.items()}
        for name, values in {"action": self.action, **arrays}.items():
            if values.dtype.kind == "f" and not (good := np.isfinite(values)).all():
                step = int(np.argwhere(~good)[0][0])
                raise UserError(f"{self.source} has a number in '{name}' that is not finite, at step {step}")
        if (beyond := np.abs(self.action) > 1.0 + 1e-6).any():
            step, number = np.argwhere(beyond)[0]
            value = self.action[step, number]
            raise UserError(
                f"{self.source} has {value:.4g} as number {number} of the action at step {step}, outside of "
                "[-1, 1]: scale actions to it"
            )


def without_last(obs: np.ndarray, action: np.ndarray) -> int:
    """Steps that have an observation behind them: of files without the last one, all steps but the last."""
    return len(action) - 1 if len(obs) == len(action) else len(action)


class EpisodeRecord:
    """An episode in the making; begins with its first observation."""

    def __init__(self, obs: ObsArray) -> None:
        self._obs = [map_parts(np.array, obs)]
        self._action: list[np.ndarray] = []
        self._reward: list[float] = []

    def add(self, obs: ObsArray, action: np.ndarray, reward: float) -> None:
        """A step: the action, and what the environment answered."""
        self._obs.append(map_parts(np.array, obs))
        self._action.append(np.array(action, np.float32))
        self._reward.append(reward)

    def save(self, path: Path, *, terminated: bool, task: str, success: bool | None = None) -> None:
        """Write the file; see `numpy_files`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        obs, vector = parts_of(stack(self._obs))
        np.savez_compressed(
            path,
            obs=obs,
            **({} if vector is None else {VECTOR: vector}),
            action=np.stack(self._action),
            reward=np.array(self._reward, np.float32),
            terminated=terminated,
            task=task,
            **({} if success is None else {"success": success}),
        )
