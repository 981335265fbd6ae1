"""Studies as batch jobs of SLURM: the script beside this file starts Ray on a job's nodes, then the study."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.words import SBATCH_OPTIONS

SCRIPT = Path(__file__).with_name("tdmpc_ray.sbatch")


@dataclass(frozen=True)
class BatchJob:
    """A study in SLURM's queue.

    Attributes:
        id: SLURM's.
        log: what it prints, across its restarts.
    """

    id: str
    log: Path


def submit(study_file: Path, out: Path, options: str) -> BatchJob:
    """Put a study into SLURM's queue, to begin or, where its folder holds one, to go on.

    Args:
        study_file: read when the job begins.
        out: the study's folder, which all nodes share.
        options: of sbatch, as in a shell; its own variables (SBATCH_PARTITION) hold as well.

    Raises:
        UserError: there is no SLURM here, or it refuses the job.
    """
    if shutil.which("sbatch") is None:
        raise UserError("sbatch is not on the path: call this where jobs are handed to SLURM")
    out = out.absolute()
    log = out.with_name(f"{out.name}.log")
    command = ["sbatch", "--parsable", *_checked(options), f"--output={str(log).replace('%', '%%')}"]
    log.parent.mkdir(parents=True, exist_ok=True)
    programs = Path(sys.executable).parent
    done = subprocess.run(
        [*command, str(SCRIPT), str(study_file.absolute()), str(out)],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", SBATCH_OPTIONS: options},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in done.stderr.splitlines()]
        raise UserError(f"SLURM refuses the job: {'; '.join(lines)}")
    return BatchJob(done.stdout.strip().partition(";")[0], log)


def _checked(options: str) -> list[str]:
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise UserError(f"--sbatch-options {options}: {str(error).lower()}") from None
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-o", "--output")
    if parser.parse_known_args(words)[0].output is not None:
        raise UserError("--sbatch-options: leave out --output, the log lies beside the folder of results")
    return words
