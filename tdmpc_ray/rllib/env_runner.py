"""The catalog's tasks as RLlib builds them, and its env runner with initial states that never repeat."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import gymnasium
import numpy as np
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from tdmpc_ray.envs import TaskInfo, make_env, registered, task_info
from tdmpc_ray.envs.multitask import make_set
from tdmpc_ray.errors import UserError

T = TypeVar("T")
# The number of the next environment that a runner builds, and of all environments of all runners. RLlib
# builds them one after the other from one and the same context, which does not say.
_slots: ContextVar[tuple[Iterator[int], int]] = ContextVar("_slots")


def task_config(name: str) -> dict[str, Any]:
    """What `TaskEnv` needs to build a task in any process of a cluster."""
    found = (registered.find(task) for task in task_info(name).tasks or (name,))
    return {"task": name, "registered": [task for task in found if task is not None]}


def read_task_config(config: dict[str, Any]) -> TaskInfo:
    """The task of a `task_config`, made known to this process where another one registered it."""
    for task in config.get("registered", ()):
        registered.remember(task)
    return task_info(config["task"])


class TaskEnv(gymnasium.Wrapper):
    """The catalog's task `config["task"]`; a class: names registered with RLlib end with the session."""

    def __init__(self, config: dict[str, Any]) -> None:
        info = read_task_config(config)
        if not info.tasks:
            super().__init__(make_env(info.name, obs=config.get("obs", "state")))
            return
        slots, num_slots = _slots.get()
        super().__init__(make_set(info, None, next(slots), num_slots))


class TDMPC2EnvRunner(SingleAgentEnvRunner):
    """Seeds its environments by run, runner and progress.

    RLlib seeds by `seed + worker_index` whenever the environments are reset from outside: a resumed run, or a
    runner that was restarted, would begin the same episodes again, every evaluation would play the same ones,
    and runs of neighbouring seeds would share theirs.
    """

    def make_env(self) -> None:
        """Build the environments; together, those of all runners play all tasks of a set."""
        each = self.config.num_envs_per_env_runner
        first = max(self.worker_index - 1, 0) * each
        token = _slots.set((itertools.count(first), max(self.num_workers or 0, 1) * each))
        try:
            super().make_env()
        finally:
            _slots.reset(token)

    def sample(self, **kwargs: Any) -> Any:
        """Step the environments.

        Raises:
            UserError: one breaks its contract; RLlib hides it behind an error without a message.
        """
        try:
            return super().sample(**kwargs)
        except RuntimeError as error:
            if isinstance(error.__cause__, UserError):
                raise error.__cause__ from None
            raise

    def _try_env_reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, Any]:
        if seed is not None:
            seed = self.fresh_seed()
        return super()._try_env_reset(seed=seed, options=options)

    def fresh_seed(self) -> int:
        """Another one after every update, step and restart; room for one per environment above it."""
        # Both come with a checkpoint, the updates with the weights that a restarted runner gets, too.
        progress = [int(self.module.unwrapped().grad_updates), self.num_env_steps_sampled_lifetime]
        seed = int.from_bytes(os.urandom(4)) if self.config.seed is None else self.config.seed
        parts = [seed, self.worker_index or 0, int(self.config.in_evaluation), *progress]
        return int(np.random.SeedSequence(parts).generate_state(1)[0]) >> 1


def on_runners(runners: Any, call: Callable[[Any], T], *, local: bool) -> list[T]:
    """What `call` gives for each runner that lives.

    Args:
        runners: RLlib's `EnvRunnerGroup`.
        call: runs on the runner.
        local: also on the one in this process.

    Raises:
        UserError: of a call; RLlib would replace the runner, which would meet it again.
    """
    results = runners.foreach_env_runner(partial(caught, call), local_env_runner=local)
    for result in results:
        if isinstance(result, UserError):
            raise result
    return results


def caught(call: Callable[[Any], T], actor: Any) -> T | UserError:
    """What `call` gives for an actor, or the `UserError` that it raises: RLlib would end the actor for it."""
    try:
        return call(actor)
    except UserError as error:
        return error
