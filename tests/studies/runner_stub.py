"""A trainable that counts, and a driver for it: runner_stub.py run|resume OUT MLFLOW_URI [STEPS]."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from ray import tune
from rich.console import Console

from tdmpc_ray.errors import PassingError, UserError


class Stub(tune.Trainable):
    """Makes 100 agent steps in each result, 1000 a second.

    Attributes:
        fails: while this file exists, seed 1 fails at 300 steps.
        slow: while this file exists, 500 steps and more go at 300 a second, so that a signal comes in time.
    """

    fails = Path("never")
    slow = Path("never")

    def setup(self, config: dict[str, Any]) -> None:
        self.env_steps = 0
        self.starts = 1

    def step(self) -> dict[str, Any]:
        time.sleep(0.3 if self.env_steps >= 500 and self.slow.exists() else 0.1)
        self.env_steps += 100
        if self.env_steps == 300 and self.config["seed"] == 1 and self.fails.exists():
            raise ValueError("as the test wants")
        report = {
            "train/return": float(self.env_steps),
            "summary/params_total": 1e5,
            "omp_threads": float(os.environ["OMP_NUM_THREADS"]),
            "starts": float(self.starts),
        }
        if self.env_steps % 500 == 0:
            report["eval/return"] = self.env_steps / 10
        done = self.env_steps >= self.config["total_steps"]
        return {"env_steps": self.env_steps, "report": report, "done": done}

    def save_checkpoint(self, folder: str) -> None:
        (Path(folder) / "stub.json").write_text(json.dumps([self.env_steps, self.starts]))

    def load_checkpoint(self, folder: str) -> None:
        self.env_steps, starts = json.loads((Path(folder) / "stub.json").read_text())
        self.starts = starts + 1


class Refused(Stub):
    """Seed 0 fails with what only the user can mend, seed 1 with what may pass."""

    def step(self) -> dict[str, Any]:
        raise (PassingError if self.config["seed"] else UserError)("mend the environment")


class Unready(Stub):
    """Cannot be set up."""

    def setup(self, config: dict[str, Any]) -> None:
        raise UserError("no room for it")


def values(uri: str, **changes: Any) -> dict[str, Any]:
    """A study of the stub."""
    return {
        "name": "toy",
        "task": "gym:Pendulum-v1",
        "preset": "light",
        "model_sizes": ["tiny"],
        "seeds": [0, 1],
        "steps": 2000,
        "set": {"update.lr": 1e-3},
        "checkpoint": {"every": 1000},
        "max_failures": 0,
        "tracking": {"uri": uri, "experiment": "exp"},
        **changes,
    }


def main() -> int:
    from tdmpc_ray.studies.file.load import make_study
    from tdmpc_ray.studies.run.runner import resume_study, run_study

    what, out, uri, *steps = sys.argv[1:]
    Stub.slow, Stub.fails = Path("slow").absolute(), Path("fails").absolute()
    console = Console(width=120)
    if what == "resume":
        return resume_study(Path(out), trainable=Stub, console=console).exit_status
    # Three trials on two cores: one has to wait.
    total = int(steps[0]) if steps else 6000
    study = make_study(values(uri, seeds=[0, 1, 2], steps=total, checkpoint={"every": 500}))
    return run_study(study, Path(out), trainable=Stub, console=console).exit_status


if __name__ == "__main__":
    sys.exit(main())
