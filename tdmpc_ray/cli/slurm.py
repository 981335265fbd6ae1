"""What commands share about batch jobs of SLURM."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tdmpc_ray.errors import UserError

SlurmOption = Annotated[
    bool, typer.Option("--slurm", help="As a batch job of SLURM, which goes on by itself at its time limit.")
]
SbatchOption = Annotated[
    str, typer.Option(metavar="OPTIONS", help="With --slurm: '--nodes=2 --gpus-per-node=1 --time=12:00:00'.")
]


def check_options(slurm: bool, *, for_slurm: Mapping[str, Any], for_ray: Mapping[str, Any]) -> None:
    """Refuse options of the other kind of cluster.

    Args:
        slurm: whether a study becomes a batch job.
        for_slurm: options that only such a job takes, with their values.
        for_ray: options that it does not take.

    Raises:
        UserError: names the options.
    """
    wrong = [name for name, value in (for_ray if slurm else for_slurm).items() if value]
    if wrong:
        place = "does not go with --slurm" if slurm else "goes with --slurm alone"
        raise UserError(f"{', '.join(wrong)} {place}")


def submit_batch_job(study_file: Path, out: Path, options: str) -> int:
    """Put a study into SLURM's queue, and say how to follow and stop it."""
    from tdmpc_ray.studies.run import slurm
    from tdmpc_ray.studies.words import shown

    job = slurm.submit(study_file, out, options)
    print(f"submitted: {job.id}, in {shown(out)}")
    print(f"follow it with: tail -F {shlex.quote(shown(job.log))}")
    print(f"stop it with: scancel --batch --signal=INT {job.id}")
    print(f"before it has begun, with: scancel {job.id}")
    return 0
