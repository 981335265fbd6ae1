"""Tasks of third parties: registered in this process, or by an installed package's entry point.

A package names a function that calls `register_task`; it is found in every process of a cluster:

    [project.entry-points."tdmpc_ray.tasks"]
    my_lab = "my_lab.tasks:register"
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

import gymnasium

from tdmpc_ray.envs.task import TaskInfo
from tdmpc_ray.errors import reason

logger = logging.getLogger(__name__)

ENTRY_POINTS = "tdmpc_ray.tasks"


@dataclass(frozen=True, eq=False)
class RegisteredTask:
    """A task and what builds it; each registration is another one."""

    info: TaskInfo
    make: Callable[..., gymnasium.Env]


_tasks: dict[str, RegisteredTask] = {}


def remember(task: RegisteredTask) -> None:
    """Make a task known that another process registered."""
    _tasks[task.info.name] = task


def find(name: str) -> RegisteredTask | None:
    """The registered task of this name; packages' entry points are run when a name is not known yet."""
    if name not in _tasks:
        _run_entry_points()
    return _tasks.get(name)


def names() -> list[str]:
    """Of all registered tasks, sorted."""
    _run_entry_points()
    return sorted(_tasks)


@functools.cache
def _pending() -> list[EntryPoint]:
    return list(entry_points(group=ENTRY_POINTS))


def _run_entry_points() -> None:
    while _pending():
        point = _pending().pop()  # first: one that looks a task up before it registers comes back here
        try:
            point.load()()
        except Exception as error:  # a foreign package's fault should not take the other tasks away
            logger.warning("the tasks of '%s' (%s) are missing: %s", point.name, point.value, reason(error))
