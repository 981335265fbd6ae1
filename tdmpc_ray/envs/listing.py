"""Which tasks there are, and which can be built here."""

from __future__ import annotations

import textwrap
import warnings
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tdmpc_ray.envs import task_shapes
from tdmpc_ray.envs.catalog import list_tasks, task_info
from tdmpc_ray.envs.extras import MODULES, missing, require_extra
from tdmpc_ray.envs.layout import UnsupportedSpacesError
from tdmpc_ray.envs.tables import TASK_SETS
from tdmpc_ray.envs.task import TaskInfo
from tdmpc_ray.errors import reason

_MOST_CHARS = 90  # of what is in a task's way


@dataclass(frozen=True)
class TaskStatus:
    """What `tdmpc-ray envs` shows of a task beside its `TaskInfo`.

    Attributes:
        obs_size: length of the observation, "images", or "images+V"; None where it cannot be known.
        action_size: length of the action; None likewise.
        installed: "yes"; or what is in the way.
    """

    obs_size: int | str | None
    action_size: int | None
    installed: str = "yes"


def find_tasks(pattern: str = "") -> list[TaskInfo]:
    """Tasks whose name matches, whatever its case.

    Args:
        pattern: part of a name, or with `*` or `?` the whole name. One that begins with "gym:" finds
            Gymnasium's tasks, which others do not.
    """
    pattern = pattern.lower()
    names = list_tasks("gymnasium") if pattern.startswith("gym:") else [*list_tasks(), *TASK_SETS]
    whole = pattern if any(sign in pattern for sign in "*?") else f"*{pattern}*"
    return [task_info(name) for name in names if fnmatchcase(name.lower(), whole)]


def task_status(info: TaskInfo) -> TaskStatus:
    """Whether a task can be built here; tasks whose sizes no table holds are built to find out."""
    if info.tasks:
        parts = [task_status(task_info(task)) for task in info.tasks]
        lacking = next((part.installed for part in parts if part.installed != "yes"), "yes")
        return TaskStatus(info.obs_size, info.action_size, lacking)
    if info.suite in MODULES:
        command = missing(info.suite)
        return TaskStatus(info.obs_size, info.action_size, f"no: {command}" if command else "yes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Gymnasium warns of each task of an older version
            shape, action_size, beside = task_shapes(info.name)
            images = f"images+{beside}" if beside else "images"
            return TaskStatus(shape[0] if len(shape) == 1 else images, action_size)
    except Exception as error:  # of a foreign task, anything may come; the others are listed all the same
        prefix = "unsupported: " if isinstance(error, UnsupportedSpacesError) else "no: "
        return TaskStatus(None, None, prefix + _in_short(reason(error).removeprefix(f"task '{info.name}' ")))


def _in_short(problem: str) -> str:
    """For a cell of a table; Gymnasium's own words fill several lines."""
    if "box2d" in problem.lower():
        return MODULES["box2d"][1]
    first, _, more = problem.partition(": choose ")
    return first if more else textwrap.shorten(problem, _MOST_CHARS, placeholder=" ...")


def require_task(name: str) -> None:
    """Refuse a task that cannot be built here; only those whose sizes no table holds are built to find out.

    Raises:
        UserError: as `make_env`.
    """
    for task in task_info(name).tasks or (name,):
        info = task_info(task)
        if info.suite in MODULES:
            require_extra(info)
        else:
            task_shapes(task)
