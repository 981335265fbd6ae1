"""The command about tasks."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tdmpc_ray.errors import UserError

_HEADER = ("task", "suite", "obs", "act", "steps", "metric", "installed")


def envs(
    pattern: Annotated[
        str, typer.Argument(help="Part of a name, or a pattern with * and ?; 'gym:*' for Gymnasium's.")
    ] = "",
) -> None:
    """List the tasks, one line each.

    With sizes of observations and actions, agent steps per episode, and what tells how well a policy does.

    Example: tdmpc-ray envs walker
    """
    from tdmpc_ray.envs.listing import find_tasks, task_status

    infos = find_tasks(pattern)
    if not infos:
        raise UserError(f"no task matches '{pattern}': list all with: tdmpc-ray envs")
    rows: list[tuple[str, ...]] = [_HEADER]
    for info in infos:
        status = task_status(info)
        sizes = ("-" if size is None else str(size) for size in (status.obs_size, status.action_size))
        rows.append((info.name, info.suite, *sizes, str(info.episode_length), info.metric, status.installed))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if not pattern:
        print("Gymnasium's tasks, gym:ID: tdmpc-ray envs 'gym:*'", file=sys.stderr)
