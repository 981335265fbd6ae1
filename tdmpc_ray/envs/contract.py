"""What every environment must keep to; who does not is named, with its task and step.

A *fault* may pass: a number that is not finite, a reward that is none, an episode that does not end. Who
steps through `faults.GuardedEnv` has the environment rebuilt and goes on. What is declared wrongly never gets
better: observations of another kind or shape than the space says are a `UserError` at once.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from tdmpc_ray.errors import UserError


class EnvFaultError(UserError):
    """An environment broke its contract in a way that may pass."""


class Contract:
    """Watches one environment.

    Args:
        task: its name.
        shape: of its observations.
        limit: steps that an episode may last; None where someone else ends it.
    """

    def __init__(self, task: str, shape: tuple[int, ...], limit: int | None = None) -> None:
        self._task, self._shape, self._limit = task, shape, limit
        self._steps = 0

    def reset(self, observation: Any) -> None:
        """Check the first observation of an episode.

        Raises:
            UserError: it breaks the contract; an `EnvFaultError` where that may pass.
        """
        self._steps = 0
        self._check_observation(observation)

    def step(self, observation: Any, reward: Any, ended: bool) -> None:
        """Check what one step gave.

        Raises:
            UserError: it breaks the contract; an `EnvFaultError` where that may pass.
        """
        self._steps += 1
        self._check_observation(observation)
        if isinstance(reward, np.ndarray) and reward.ndim == 0:
            reward = reward.item()
        if not isinstance(reward, (numbers.Real, np.bool_)):
            raise self._fault(f"the reward is no number but {_kind(reward)}")
        if not math.isfinite(reward):
            raise self._fault(f"the reward is {reward}")
        if self._limit is not None and self._steps >= self._limit and not ended:
            raise self._fault(
                f"the episode goes on after its {self._limit} steps: end it, give a longer episode_length, "
                "or wrap the environment in gymnasium.wrappers.TimeLimit"
            )

    def last(self, info: dict[str, Any]) -> None:
        """Check the info of an episode's last step, of a task whose metric is its success.

        Raises:
            UserError: it does not say it.
        """
        if info.get("success") is None:
            raise UserError(
                self._named(
                    "the episode ends, and info['success'] is missing: set it, or register the task "
                    "with metric='return'"
                )
            )

    def _check_observation(self, observation: Any) -> None:
        try:
            observation = np.asarray(observation, np.float32)
        except (TypeError, ValueError):
            raise UserError(
                self._named(f"the observation is no array of numbers but {_kind(observation)}")
            ) from None
        if observation.shape != self._shape:
            raise UserError(
                self._named(f"the observation has shape {observation.shape}, declared is {self._shape}")
            )
        if not np.isfinite(observation).all():
            index = int(np.flatnonzero(~np.isfinite(observation))[0])
            raise self._fault(f"number {index} of the observation is {observation.reshape(-1)[index]}")

    def _fault(self, what: str) -> EnvFaultError:
        return EnvFaultError(self._named(what))

    def _named(self, what: str) -> str:
        return named(self._task, self._steps, what)


def named(task: str, step: int, what: str) -> str:
    """What is wrong, with the task and the step; step 0 is the reset."""
    return f"task '{task}', {f'step {step}' if step else 'reset'}: {what}"


def _kind(value: Any) -> str:
    return type(value).__name__
