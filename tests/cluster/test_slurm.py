"""A study on SLURM itself: two nodes, both of which are this machine.

apt-get install slurm-wlm munge
.venv/bin/pytest -m slow tests/cluster/test_slurm.py -s        # as root
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from slurm_cluster import PROGRAMS, Slurm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STEPS = 4000
WAIT_S = 600.0


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    missing += ["to be root"] * (os.geteuid() != 0)
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    cluster = Slurm()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


class Submitted:
    """A study in its folder, and the job that runs it."""

    def __init__(self, slurm: Slurm, folder: Path) -> None:
        self.slurm, self.folder, self.out = slurm, folder, folder / "out"
        self.environment = {
            k: v for k, v in slurm.environment.items() if not k.startswith(("RAY_", "TUNE_", "MLFLOW_"))
        }
        self.id = ""

    def call(self, *args: str) -> None:
        """`submit` or `resume`, with what each node has."""
        options = "--sbatch-options=--nodes=2 --cpus-per-task=1 --gpus-per-node=1 --mem=3500 --time=30"
        command = [sys.executable, "-m", "tdmpc_ray.cli", *args, "--slurm", options]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        first, follow, stop, _ = done.stdout.splitlines()
        self.id = stop.rpartition(" ")[2]
        assert (first, follow) == (f"submitted: {self.id}, in out", "follow it with: tail -F out.log")

    def signal(self, name: str) -> None:
        """To the batch script, as SLURM's warning goes."""
        self.slurm.run("scancel", "--batch", f"--signal={name}", self.id)

    def log(self) -> str:
        file = self.folder / "out.log"
        return file.read_text() if file.exists() else ""

    def steps(self) -> dict[str, int]:
        """Of each trial, so far."""
        file = self.out / "metrics.csv"
        rows = csv.DictReader(file.read_text().splitlines()) if file.exists() else []
        return {row["trial"]: int(row["env_steps"]) for row in rows if row["env_steps"]}

    def wait_for_state(self, *states: str) -> dict[str, str]:
        self.slurm.wait_for(lambda: self.slurm.job(self.id)["JobState"] in states, WAIT_S)
        return self.slurm.job(self.id)

    def wait_for_steps(self, beyond: int) -> None:
        """Until both trials have made more than so many."""

        def there() -> bool:
            assert self.slurm.job(self.id)["JobState"] in {"PENDING", "RUNNING", "COMPLETING"}, self.log()
            steps = self.steps().values()
            return len(steps) == 2 and min(steps) > beyond

        self.slurm.wait_for(there, WAIT_S)


def write_study(folder: Path, overrides: dict[str, object]) -> None:
    values = {
        "name": "batch",
        "task": "gym:Pendulum-v1",
        "model_sizes": ["tiny"],
        "seeds": [0, 1],
        "steps": STEPS,
        "set": {**overrides, "data.seed_steps": 100},
        "evaluation": {"every": STEPS, "episodes": 1},
        "tracking": {"experiment": "exp", "models": False},
    }
    (folder / "s.yaml").write_text(yaml.safe_dump(values))


def test_a_study_saves_at_the_warning_goes_on_is_stopped_and_resumed(
    slurm: Slurm, tmp_path: Path, tiny_overrides: dict[str, object]
) -> None:
    started = time.monotonic()
    write_study(tmp_path, tiny_overrides)
    study = Submitted(slurm, tmp_path)
    study.call("submit", "s.yaml", "--out", "out")
    study.wait_for_steps(0)  # a trial takes a core, and a node has one: both are at work
    print(f"\nat work after {time.monotonic() - started:.0f} s")
    study.signal("USR1")
    slurm.wait_for(lambda: slurm.job(study.id)["Restarts"] == "1", WAIT_S)
    assert "stopping: saving 2 trials first" in study.log()
    assert "2 of 2 trials have a checkpoint; resume with: " in study.log()
    assert f"saved: job {study.id} goes back into the queue" in study.log()
    saved = min(study.steps().values())
    assert 0 < saved < STEPS

    study.wait_for_steps(saved)
    study.signal("INT")
    job = study.wait_for_state("FAILED")
    assert (job["ExitCode"], job["Restarts"]) == ("143:0", "1")
    again = study.log().rpartition("resume with: ")[2].splitlines()[0]
    assert again.endswith(
        "tdmpc-ray resume out --slurm "
        "--sbatch-options='--nodes=2 --cpus-per-task=1 --gpus-per-node=1 --mem=3500 --time=30'"
    )

    study.call("resume", "out")
    job = study.wait_for_state("COMPLETED", "FAILED")
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("COMPLETED", "0:0", "0"), study.log()
    print(f"done after {time.monotonic() - started:.0f} s")
    assert set(study.steps().values()) == {STEPS}
    assert study.log().count("resuming batch: 2 trials of 4,000 steps") == 2

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("exp")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    assert not [*Path("/tmp").glob("ray-[0-9]*")]
