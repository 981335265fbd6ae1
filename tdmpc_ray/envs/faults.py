"""An environment that survives its own faults: it is rebuilt, and its episode ends there.

Whatever `step` or `reset` raises is a fault, and so is a number that is not finite or a call that hangs. What
never gets better is an error as before (see `contract`).
"""

from __future__ import annotations

import logging
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from tdmpc_ray.envs.contract import EnvFaultError, named
from tdmpc_ray.envs.spaces import zeros
from tdmpc_ray.envs.watchdog import StepTimeout, watched
from tdmpc_ray.errors import PassingError, UserError, described, reason

logger = logging.getLogger(__name__)

# In the info of the step that ended the episode, and of a reset that needed several tries: what went wrong.
FAULTS = "env_faults"
MAX_CUT = 10  # episodes that faults may cut in a row where results are measured
_TRIES = 4
_WAIT_S = 0.5  # before the second try; twice as long before each other
# Simulators compile shaders and load their assets when they are built and in their first reset.
_START_FACTOR = 5


class GuardedEnv(gymnasium.Wrapper):
    """Rebuilds one environment when it fails.

    A step that fails ends the episode: `truncated`, with an observation of zeros, which belongs to no
    transition, and `info[FAULTS]`. The next reset builds the environment anew.

    Args:
        build: makes the environment.
        task: its name, for messages.
        timeout_s: seconds that a step or a reset may take; building and the first reset, five times as long.
            None or 0: any time.
        seed: that `build` gives the environment, if it does.

    Raises:
        UserError: it cannot be built.
    """

    def __init__(
        self,
        build: Callable[[], gymnasium.Env],
        task: str,
        timeout_s: float | None = None,
        seed: int | None = None,
    ) -> None:
        self._build, self._task, self._timeout_s = build, task, timeout_s or 0.0
        super().__init__(self._built())
        self._steps, self._seed, self._seeds_used = 0, seed, 0
        self._is_broken, self._is_new = False, True
        self._seen: Counter[str] = Counter()  # faults, numbers in their words aside

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's, or the end of the episode.

        Raises:
            UserError: the environment breaks its contract in a way that never gets better.
        """
        self._steps += 1
        try:
            with watched(f"task '{self._task}', step {self._steps}", self._timeout_s):
                obs, reward, terminated, truncated, info = self.env.step(action)
        except (Exception, StepTimeout) as error:
            fault = self._fault(error)
            return zeros(self.env.observation_space), 0.0, False, True, {FAULTS: (fault,)}
        return obs, reward, terminated, truncated, info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """As the environment's, built anew where it has failed.

        Raises:
            UserError: that failed several times in a row.
        """
        faults: list[str] = []
        self._steps = 0
        if seed is not None:
            self._seed, self._seeds_used = seed, 0
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_WAIT_S * 2 ** (attempt - 1))
                seed = None  # it may be this one that the environment cannot start from
            try:
                if self._is_broken:
                    self._rebuild()
                    seed = self._next_seed() if seed is None else seed
                limit = self._timeout_s * (_START_FACTOR if self._is_new else 1)
                with watched(f"task '{self._task}', reset", limit):
                    obs, info = self.env.reset(seed=seed, options=options)
            except (Exception, StepTimeout) as error:
                faults.append(self._fault(error))
                continue
            self._is_new = False
            return obs, {**info, FAULTS: tuple(faults)} if faults else info
        raise PassingError(f"{faults[-1]}: {_TRIES} times in a row; mend the environment")

    def _fault(self, error: BaseException) -> str:
        """Log what has happened and note that the environment is broken.

        Raises:
            UserError: what never gets better.
        """
        if isinstance(error, EnvFaultError):
            fault = str(error)
        elif isinstance(error, UserError):
            raise error
        else:
            fault = named(self._task, self._steps, _described(error))
        self._is_broken = True
        kind = re.sub(r"\d+", "", fault)
        self._seen[kind] += 1
        times = self._seen[kind]
        if str(times).rstrip("0") == "1":  # the first, the tenth, the hundredth
            so_far = f" (the {times}th time)" if times > 1 else ""
            logger.warning("%s: the environment is rebuilt%s", fault, so_far)
        return fault

    def _rebuild(self) -> None:
        try:
            with watched(f"task '{self._task}', closing it", self._timeout_s):
                self.env.close()
        except (Exception, StepTimeout) as error:
            logger.warning("task '%s': closing it failed: %s", self._task, _described(error))
        try:
            self.env = self._built()
        except UserError as error:  # a server that restarts, perhaps
            raise EnvFaultError(str(error)) from error
        self._is_broken, self._is_new = False, True

    def _built(self) -> gymnasium.Env:
        try:
            with watched(f"task '{self._task}', building it", self._timeout_s * _START_FACTOR):
                return self._build()
        except UserError:
            raise
        except (Exception, StepTimeout) as error:
            raise PassingError(f"task '{self._task}' cannot be built: {_described(error)}") from error

    def _next_seed(self) -> int | None:
        """Of an environment that was built anew: neither the one that failed, nor another each time."""
        if self._seed is None:
            return None
        self._seeds_used += 1
        return int(np.random.SeedSequence([self._seed, self._seeds_used]).generate_state(1)[0]) >> 1


def too_many_cut(fault: str) -> UserError:
    """The error where no episode comes to its end, of the last `fault`."""
    return PassingError(f"faults of the environment cut every episode: mend it; the last one: {fault}")


def _described(error: BaseException) -> str:
    """The error and where it was raised, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f for f in reversed(frames) if not f.filename.endswith("watchdog.py")), None)
    where = f" ({place.filename.rpartition('/')[2]}:{place.lineno})" if place is not None else ""
    return f"{reason(error) if isinstance(error, StepTimeout) else described(error)}{where}"
