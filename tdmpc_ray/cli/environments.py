"""The command about tasks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tdmpc_ray.cli.common import JsonOption, print_json, print_table
from tdmpc_ray.errors import UserError

if TYPE_CHECKING:
    from tdmpc_ray.envs import TaskInfo

_HEADER = ("task", "suite", "obs", "act", "steps", "metric", "installed")


def envs(
    pattern: Annotated[
        str, typer.Argument(help="Part of a name, or a pattern with * and ?; 'gym:*' for Gymnasium's.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """List the tasks, one line each.

    With sizes of observations and actions, agent steps per episode, and what tells how well a policy does.

    Example: tdmpc-ray envs walker
    """
    from tdmpc_ray.envs.listing import find_tasks, task_status

    infos = find_tasks(pattern)
    if not infos:
        raise UserError(f"no task matches '{pattern}': list all with: tdmpc-ray envs")
    if as_json:
        print_json([_form(info) for info in infos])
        return
    rows: list[tuple[str, ...]] = [_HEADER]
    for info in infos:
        status = task_status(info)
        sizes = ("-" if size is None else str(size) for size in (status.obs_size, status.action_size))
        rows.append((info.name, info.suite, *sizes, str(info.episode_length), info.metric, status.installed))
    print_table(rows)
    if not pattern:
        print("Gymnasium's tasks, gym:ID: tdmpc-ray envs 'gym:*'", file=sys.stderr)


def _form(info: TaskInfo) -> dict[str, Any]:
    from tdmpc_ray.cli.forms import TaskForm
    from tdmpc_ray.envs.listing import task_status

    status = task_status(info)
    return TaskForm(
        name=info.name,
        suite=info.suite,
        obs_size=status.obs_size,
        action_size=status.action_size,
        episode_length=info.episode_length,
        metric=info.metric,
        installed=status.installed == "yes",
        obstacle=None if status.installed == "yes" else status.installed,
    ).model_dump()
