"""The command line `tdmpc-ray`. Whatever is slow to import is imported by the command that needs it."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tdmpc_ray import __version__
from tdmpc_ray.addresses import refuse_address
from tdmpc_ray.cli import datasets
from tdmpc_ray.cli.cluster import list_jobs, logs, status, stop, submit
from tdmpc_ray.cli.demonstrations import demos
from tdmpc_ray.cli.environments import envs
from tdmpc_ray.cli.exchange import export, export_official, import_official
from tdmpc_ray.cli.models import log_models, register, serve
from tdmpc_ray.cli.planning import plan, schema
from tdmpc_ray.cli.results import compare, evaluate, report, runs, sync
from tdmpc_ray.cli.training import resume, train, tune
from tdmpc_ray.errors import UserError

app = typer.Typer(
    name="tdmpc-ray",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train TD-MPC2 world models with Ray RLlib, from one run to a scaling study, tracked in MLflow.\n\n"
    "Begin with: tdmpc-ray train --task walker-walk --model-size 1 --preset light --steps 20000",
)


class _Interrupted(Exception):
    """Ctrl-C, which Typer would turn into a silent exit status."""


def _guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that refuses addresses for paths, and says that it was interrupted."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        for value in options.values():
            for path in value if isinstance(value, list) else [value]:
                if isinstance(path, Path):
                    refuse_address(path)
        try:
            return command(*args, **options)
        except KeyboardInterrupt:
            raise _Interrupted from None

    return run


for command in (
    train,
    tune,
    resume,
    runs,
    evaluate,
    compare,
    report,
    sync,
    plan,
    schema,
    import_official,
    export_official,
    export,
    register,
    log_models,
    serve,
    envs,
    demos,
    submit,
    status,
    logs,
    stop,
):
    app.command()(_guarded(command))
app.command("list")(_guarded(list_jobs))
_datasets = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Make, import and look at datasets."
)
_datasets.command("make")(_guarded(datasets.make))
_datasets.command("import")(_guarded(datasets.import_))
_datasets.command("info")(_guarded(datasets.info))
app.add_typer(_datasets, name="dataset")


@app.callback(invoke_without_command=True)
def _options(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if show_version:
        print(f"tdmpc-ray {__version__}")
        raise typer.Exit


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for failures, 2 for bad input, 130 after Ctrl-C."""
    warnings.filterwarnings("ignore", module="glfw")  # it misses a display that nobody needs
    try:
        status = app(args=list(args) if args is not None else None, standalone_mode=False)
        return status if isinstance(status, int) else 0
    except UserError as error:
        _complain(str(error))
        return 2
    except (_Interrupted, KeyboardInterrupt, typer.Abort):
        _complain("interrupted", "")
        return 130
    except Exception as error:
        if hasattr(error, "format_message"):  # a wrong option or argument
            # Without arguments the "message" is the help.
            line = error.format_message().replace("Input should", "must").partition(", unable to parse")[0]
            print(line, file=sys.stderr) if "Usage:" in line else _complain(line)
            return 2
        if os.environ.get("TDMPC_RAY_DEBUG") == "1":
            raise
        with tempfile.NamedTemporaryFile("w", prefix="tdmpc-ray-", suffix=".log", delete=False) as file:
            traceback.print_exc(file=file)
        reason = (str(error).strip().splitlines() or [""])[0]
        _complain(f"{type(error).__name__}: {reason[:300]} (details: {file.name}; please report it)")
        return 1


def _complain(line: str, prefix: str = "error: ") -> None:
    print(prefix + line, file=sys.stderr)
