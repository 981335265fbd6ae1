"""Programs that stand for SLURM's, Ray's and ours, where only the batch script between them is tested."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docker/slurm/tdmpc_ray.sbatch"

_NOTE = 'echo "$(basename "$0") $*" >>"$NOTES"'
# Of the second node: what srun is told, then the command itself.
_SRUN = """#!/bin/bash
{note}
while [[ $1 == --* ]]; do shift; done
export SLURMD_NODENAME=n2
[ "$1" != printenv ] || {{ echo 127.0.0.1; exit; }}
setsid "$@" &
trap "kill -s KILL -- -$!; exit 143" TERM # as SLURM ends a step
wait $!
"""
# A head listens where it is told to; a node lives until it is ended. RAY_FAILS: the kind that does not start.
_RAY = """#!{python} -SE
import os, signal, socket, sys, time
args = dict(arg.partition("=")[::2] for arg in sys.argv[1:])
kind = "head" if "--head" in args else "worker"
with open(os.environ["NOTES"], "a") as notes:
    print("ray", *sys.argv[1:], f"token={{len(os.environ['RAY_AUTH_TOKEN'])}}", file=notes)
    ignores = signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    print(kind, os.getpid(), "ignores warnings" if ignores else "ends at a warning", file=notes)
if os.environ.get("RAY_FAILS") == kind:
    sys.exit("the port is taken")
if kind == "head":
    listening = socket.create_server(("127.0.0.1", int(args["--port"])))
time.sleep(60)
"""
# What waits for the nodes: JOINED is how many of them do, where it is not all.
_PYTHON = """#!/bin/bash
{note}
cat >/dev/null
[ "$JOINED" != never ] || exec sleep 60
[ -z "$JOINED" ] || {{ echo "$JOINED of 2 nodes joined"; exit 1; }}
"""
# A study that ends with DRIVER, or goes on until a signal, and then has saved unless SAVES is empty.
_DRIVER = """#!/bin/bash
saved() {{ [ -z "$SAVES" ] || mkdir -p "$OUT/tune/trial/checkpoint_00000$((RANDOM % 9 + 1))"; exit "$1"; }}
trap 'echo got USR1 >>"$NOTES"; saved 138' USR1
trap 'echo got TERM >>"$NOTES"; saved 143' TERM
mkdir -p "$OUT"; touch "$OUT/study.yaml"
{note}
[ "$DRIVER" = waits ] || exit "$DRIVER"
while :; do sleep 0.02; done
"""
_SCONTROL = """#!/bin/bash
{note}
exit "${{REQUEUE:-0}}"
"""


class Batch:
    """The script in an allocation of two nodes, both of which are this machine.

    Args:
        folder: where it runs.
        tmp: short path of a folder for Ray's files.
        variables: of its environment, beside SLURM's own.
    """

    def __init__(self, folder: Path, tmp: str, **variables: str) -> None:
        self.folder, self.out, self._notes = folder, folder / "out", folder / "notes"
        self.tmp = Path(tmp)
        programs = folder / "bin"
        programs.mkdir()
        texts = {
            "srun": _SRUN, "ray": _RAY, "python": _PYTHON, "tdmpc-ray": _DRIVER, "scontrol": _SCONTROL
        }  # fmt: skip
        for name, text in texts.items():
            (programs / name).write_text(text.format(note=_NOTE, python=sys.executable))
            (programs / name).chmod(0o755)
        (folder / "s.yaml").touch()
        self.environment = {
            "PATH": f"{programs}:/usr/bin:/bin",
            "NOTES": str(self._notes),
            "OUT": str(self.out),
            "DRIVER": "waits",
            "SAVES": "yes",
            "RAY_TMPDIR": tmp,
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_JOB_NUM_NODES": "2",
            "SLURMD_NODENAME": "n1",
            "SLURM_CPUS_ON_NODE": "4",
            "SLURM_GPUS_ON_NODE": "2",
            "SLURM_MEM_PER_CPU": "1000",
            **variables,
        }

    @property
    def job_id(self) -> str:
        return self.environment["SLURM_JOB_ID"]

    @property
    def notes(self) -> list[str]:
        return self._notes.read_text().splitlines() if self._notes.exists() else []

    def said(self, beginning: str) -> list[str]:
        """What was noted of one program."""
        return [line for line in self.notes if line.startswith(beginning)]

    def run(
        self, *signals: signal.Signals, after: str = "tdmpc-ray ", args: tuple[str, ...] = ()
    ) -> tuple[int, str]:
        """Run it to its end; returns its exit status and what it said.

        Args:
            signals: to the script, one by one, once `after` was noted.
            after: beginning of a note.
            args: of the script; none: a study and a folder for it.
        """
        process = subprocess.Popen(
            ["bash", str(SCRIPT), *(args or ("s.yaml", str(self.out)))],
            cwd=self.folder,
            env=self.environment,
            # As SLURM starts it; a shell's own background process would have it ignored, for good.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + 60
        for number in signals:
            while not self.said(after):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(number)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said

    def left_behind(self) -> list[int]:
        """Nodes of Ray that are still there; the kernel takes a moment over those that were killed."""
        pids = [int(line.split()[1]) for line in self.notes if line.startswith(("head", "worker"))]
        deadline = time.monotonic() + 20
        while (
            left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        ) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left


@contextmanager
def short_folder() -> Iterator[str]:
    """Of a path that Ray's sockets can have."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="s") as folder:
        yield folder
