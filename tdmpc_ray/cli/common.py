"""What the commands share."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tdmpc_ray.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

JsonOption = Annotated[
    bool, typer.Option("--json", help="As JSON, for programs; docs/json.md has the schema.")
]
MLflowOption = Annotated[str, typer.Option(envvar="MLFLOW_TRACKING_URI", help="Address of MLflow.")]


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Settings of `--set KEY=VALUE`.

    Raises:
        UserError: a pair is none.
    """
    import yaml

    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {pair}: write KEY=VALUE, such as --set update.lr=1e-3")
        try:
            settings[key.strip()] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise UserError(f"--set {pair}: '{value}' is not a value") from None
    return settings


def print_json(value: Any) -> None:
    """Print a value as JSON; numbers that are none, as JSON has them not, are null."""
    import json

    print(json.dumps(_finite(value), indent=1))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows, the head first, in columns as wide as their longest cells.

    In a terminal that is too narrow for that, the last column stands below the others.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    is_narrow = sys.stdout.isatty() and sum(widths) + 2 * len(widths) > shutil.get_terminal_size().columns
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines = [cells[:-1], ["", cells[-1]]] if is_narrow else [cells]
        for line in lines:
            print("  ".join(line).rstrip())


def make_console() -> Console:
    """Standard output; a file or a pipe has no width, so tables get enough."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=120)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[float], None]]:
    """A bar on a terminal, nothing elsewhere; yields what takes the share done, 0 to 1."""
    from rich.progress import Progress

    console = make_console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda share: progress.update(task, completed=share)
