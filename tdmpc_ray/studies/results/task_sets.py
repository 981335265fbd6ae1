"""One model of several tasks beside its specialists: its run is shown on each task that others learn."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tdmpc_ray.envs.catalog import task_info
from tdmpc_ray.errors import UserError


@dataclass(frozen=True)
class Share:
    """What a run is shown as.

    Attributes:
        task: that it is compared on.
        metric: of that task.
        parts: tasks that its steps, time and operations are shared by.
    """

    task: str
    metric: str
    parts: int = 1


def shares(task: str, tasks: Collection[str], metric: str) -> list[Share]:
    """What a run of `task` is shown as, beside runs of `tasks`.

    A set's run is shown on each of its tasks that is there by itself, with that task's metric, such as
    `eval/<task>/return` for `eval/return`; any other as itself.
    """
    try:
        members = task_info(task).tasks
    except UserError:  # a task of somebody else's
        members = ()
    known = [member for member in members if member in tasks]
    if not known or not metric.startswith("eval/"):
        return [Share(task, metric)]
    kind = metric.removeprefix("eval/")
    return [Share(member, f"eval/{member}/{kind}", len(members)) for member in known]
