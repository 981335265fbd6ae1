"""Several tasks as one environment: padded observations and actions, one task per episode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import ceil
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike

from tdmpc_ray.envs import make_env, task_sizes
from tdmpc_ray.envs.spaces import FloatArray, action_box, observation_box
from tdmpc_ray.envs.task import TaskInfo


class MultiTaskEnv(gymnasium.Env):
    """Plays some of a set's tasks in turn: after each episode the one that lags most behind its share.

    Observations are filled up with zeros; of an action each task takes the first numbers. `info["task"]` is
    the task's index in the set.

    Args:
        tasks: indices in the set and names of the tasks to play; built when it is their turn.
        obs_size: of the largest task in the set.
        action_size: of the largest task in the set.
        seed: of the tasks and of `action_space.sample()`.
        make: builds a task by name and seed.
        shares: of the steps, for each of the tasks; None: the same.
    """

    def __init__(
        self,
        tasks: Sequence[tuple[int, str]],
        obs_size: int,
        action_size: int,
        seed: int | None = None,
        make: Callable[..., gymnasium.Env] = make_env,
        shares: Sequence[float] | None = None,
    ) -> None:
        self.observation_space, self.action_space = observation_box(obs_size), action_box(action_size, seed)
        self._tasks, self._seeds, self._make = list(tasks), np.random.SeedSequence(seed), make
        self._envs: dict[int, gymnasium.Env] = {}
        self._steps = np.zeros(len(self._tasks))
        self._shares = np.ones(len(self._tasks)) if shares is None else np.array(shares, float)
        self._playing = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Start an episode of the next task; a seed begins the random streams of all tasks anew."""
        super().reset(seed=seed)
        if seed is not None:
            self._seeds = np.random.SeedSequence(seed)
            self.close()
        self._playing = int(np.argmin(self._steps / self._shares))
        obs, info = self._env().reset(options=options)
        return self._padded(obs), self._with_task(info)

    def step(self, action: ArrayLike) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Apply the first numbers of an action (A,) in [-1, 1]."""
        env = self._env()
        assert env.action_space.shape is not None
        own = np.asarray(action, np.float32)[: env.action_space.shape[0]]
        obs, reward, terminated, truncated, info = env.step(own)
        self._steps[self._playing] += 1
        return self._padded(obs), float(reward), terminated, truncated, self._with_task(info)

    def close(self) -> None:
        """Close all tasks that were built."""
        for env in self._envs.values():
            env.close()
        self._envs.clear()

    def _env(self) -> gymnasium.Env:
        index, name = self._tasks[self._playing]
        if index not in self._envs:
            own = np.random.SeedSequence(self._seeds.entropy, spawn_key=(index,))
            self._envs[index] = self._make(name, seed=int(own.generate_state(1)[0]))
        return self._envs[index]

    def _padded(self, obs: FloatArray) -> FloatArray:
        assert self.observation_space.shape is not None
        padded = np.zeros(self.observation_space.shape, np.float32)
        padded[: len(obs)] = obs
        return padded

    def _with_task(self, info: dict[str, Any]) -> dict[str, Any]:
        return {**info, "task": self._tasks[self._playing][0]}


def action_sizes(info: TaskInfo) -> list[int]:
    """Length of each task's action in a set, in the order of their ids."""
    return [task_sizes(name)[1] for name in info.tasks]


def make_set(
    info: TaskInfo,
    seed: int | None,
    slot: int = 0,
    num_slots: int = 1,
    make: Callable[..., gymnasium.Env] = make_env,
) -> MultiTaskEnv:
    """The environment that plays a set of tasks, or the share of one of several such environments.

    Args:
        info: of the set.
        seed: see `MultiTaskEnv`.
        slot: which of the environments this is.
        num_slots: how many there are; with as many as tasks, each plays one.
        make: builds a task by name and seed.
    """
    sizes = [task_sizes(name) for name in info.tasks]
    shares = _shares(len(info.tasks), slot, num_slots)
    tasks = [(index, info.tasks[index]) for index in shares]
    lengths = max(obs for obs, _ in sizes), max(action for _, action in sizes)
    return MultiTaskEnv(tasks, *lengths, seed, make, [float(share) for share in shares.values()])


def _shares(num_tasks: int, slot: int, num_slots: int) -> dict[int, Fraction]:
    """The tasks of one of several environments, and how much of each it plays: all tasks get the same in all.

    Tasks stand in a row, each as long as the others, and the row is cut into equal parts; a task at a cut is
    shared. Neighbours in the set, which are often alike, come to different environments.
    """
    row = sorted(range(num_tasks), key=lambda index: (index % num_slots, index))
    begin, end = Fraction(slot * num_tasks, num_slots), Fraction((slot + 1) * num_tasks, num_slots)
    parts = {
        row[i]: min(end, Fraction(i + 1)) - max(begin, Fraction(i)) for i in range(int(begin), ceil(end))
    }
    return {index: parts[index] for index in sorted(parts)}
