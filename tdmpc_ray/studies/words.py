"""How things are said to users."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from tdmpc_ray.addresses import is_address, public_address
from tdmpc_ray.studies.tracking.client import public_uri, sqlite_path

JOB_ADDRESS = "TDMPC_RAY_JOB_ADDRESS"  # of the job server, in the environment of a job
SBATCH_OPTIONS = "TDMPC_RAY_SBATCH"  # that a batch job was submitted with, in its environment


def count(number: int, thing: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number:,} {thing}" + "s" * (number != 1)


def shown(place: str | Path) -> str:
    """A path as a user would type it here; an address without its keys."""
    if is_address(place):
        return public_address(str(place))
    path = Path(os.path.abspath(place))
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def mlflow_command(uri: str) -> str:
    """The command that shows the runs, or the address where they are shown already."""
    path = sqlite_path(uri)
    if path is None and not uri.startswith(("postgresql", "mysql", "mssql")):
        return public_uri(uri)
    address = public_uri(uri) if path is None else f"sqlite:///{shown(path)}"
    return f"{program('mlflow')} ui --backend-store-uri {shlex.quote(address)}"


def resume_command(place: str | Path) -> str:
    """What goes on with a study: by its place; within a job, as one again, from where that was submitted."""
    if address := os.environ.get(JOB_ADDRESS):
        return f"tdmpc-ray resume {shlex.quote(Path(place).name)} --address {shlex.quote(address)}"
    command = f"{program('tdmpc-ray')} resume {shlex.quote(shown(place))}"
    if (options := os.environ.get(SBATCH_OPTIONS)) is None:
        return command
    return f"{command} --slurm" + (f" --sbatch-options={shlex.quote(options)}" if options else "")


def program(name: str) -> str:
    """How to call a program of this environment: its name, or its path where it is not on PATH."""
    path = Path(sys.executable).with_name(name)
    return name if shutil.which(name) == str(path) else shlex.quote(shown(path))
