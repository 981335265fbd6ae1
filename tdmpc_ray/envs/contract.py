"""What every environment must keep to; who does not is named, with its task and step.

A *fault* may pass: a number that is not finite, a reward that is none, an episode that does not end. Who
steps through `faults.GuardedEnv` has the environment rebuilt and goes on. What is declared wrongly never gets
better: observations of another kind or shape than the space says are a `UserError` at once, and so is a
reward that is none in an environment's very first step.
"""

from __future__ import annotations

import math
import numbers
from typing import TYPE_CHECKING, Any

import numpy as np

from tdmpc_ray.errors import PassingError, UserError
from tdmpc_ray.observations import VECTOR

if TYPE_CHECKING:
    from tdmpc_ray.envs.layout import Layout

_LARGEST = float(np.finfo(np.float32).max)  # rewards are kept as float32


class EnvFaultError(PassingError):
    """An environment broke its contract in a way that may pass."""


class LayoutError(Exception):
    """An observation is not what its space says; the message goes on from "the observation"."""


class Contract:
    """Watches one environment.

    Args:
        task: its name.
        layout: reads its observations.
        limit: steps that an episode may last; None where someone else ends it.

    Attributes:
        steps: of the episode so far.
    """

    def __init__(self, task: str, layout: Layout, limit: int | None = None) -> None:
        self._task, self._layout, self._limit = task, layout, limit
        self.steps = 0
        self._has_stepped = False

    def reset(self, observation: Any) -> Any:
        """Read the first observation of an episode.

        Raises:
            UserError: it breaks the contract; an `EnvFaultError` where that may pass.
        """
        self.steps = 0
        return self._read(observation)

    def step(self, observation: Any, reward: Any, ended: bool) -> tuple[Any, float]:
        """Read the observation and the reward of one step.

        Raises:
            UserError: it breaks the contract; an `EnvFaultError` where that may pass.
        """
        self.steps += 1
        observation = self._read(observation)
        if isinstance(reward, (np.ndarray, np.generic)) and reward.size == 1:
            reward = reward.item()
        if not isinstance(reward, numbers.Real):
            what = f"the reward is no number but {type(reward).__name__}"
            if not self._has_stepped:
                raise UserError(self._named(f"{what}: mend the environment"))
            raise self._fault(what)
        self._has_stepped = True
        reward = float(reward)
        if not abs(reward) <= _LARGEST:
            what = f"the reward is {reward}"
            raise self._fault(f"{what}, more than float32 can hold" if math.isfinite(reward) else what)
        if self._limit is not None and self.steps >= self._limit and not ended:
            raise self._fault(
                f"the episode goes on after its {self._limit} steps: end it, give a longer episode_length, "
                "or wrap the environment in gymnasium.wrappers.TimeLimit"
            )
        return observation, reward

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

    def _named(self, what: str) -> str:
        """What is wrong in this step."""
        return named(self._task, self.steps, what)

    def _read(self, observation: Any) -> Any:
        try:
            read = self._layout(observation)
        except LayoutError as error:
            raise UserError(self._named(f"the observation{error}")) from None
        vector = read[VECTOR] if isinstance(read, dict) else read
        if vector.dtype != np.uint8 and not np.isfinite(vector).all():
            index = int(np.flatnonzero(~np.isfinite(vector))[0])
            raise self._fault(f"number {index} of the observation is {vector[index]}")
        return read

    def _fault(self, what: str) -> EnvFaultError:
        return EnvFaultError(self._named(what))


def named(task: str, step: int, what: str) -> str:
    """What is wrong, with the task and the step; step 0 is the reset."""
    return f"task '{task}', {f'step {step}' if step else 'reset'}: {what}"
