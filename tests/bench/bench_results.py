"""What it takes to read a large study: CPU seconds of `compare` and `report`, whole commands, on sqlite.

    python tests/bench/bench_results.py                     # 1,000 trials with 100 evaluations each
    python tests/bench/bench_results.py --trials 100

The study is a search with a setting of its own for each trial, the most that tables and figures can have to
tell apart. It is written into the database directly.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import numpy as np

from tdmpc_ray.studies.tracking.client import check_tracking, connect

EXPERIMENT = "large"
NOW = 1_700_000_000_000
PARENT = "f" * 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--points", type=int, default=100)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        check_tracking(uri, EXPERIMENT)
        experiment = connect(uri).get_experiment_by_name(EXPERIMENT).experiment_id
        with sqlite3.connect(f"{folder}/mlflow.db") as database:
            write_study(database, f"{folder}/artifacts", int(experiment), args.trials, args.points)
        print(f"{args.trials:,} trials with {args.points:,} evaluations each:")
        for command in ("compare", "report"):
            before = _children_s()
            call = [sys.executable, "-m", "tdmpc_ray.cli", command, EXPERIMENT, "--mlflow-uri", uri]
            done = subprocess.run(
                [*call, "--out", f"{folder}/out"],
                capture_output=True,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            if done.returncode != 0:
                raise SystemExit(done.stderr)
            print(f"  {command}: {_children_s() - before:.1f} s of CPU")


def write_study(
    database: sqlite3.Connection, artifacts: str, experiment: int, trials: int, points: int
) -> None:
    """A study of `trials` finished trials, each with a learning rate of its own."""
    rng = np.random.default_rng(0)
    run = (
        "INSERT INTO runs (run_uuid, name, user_id, status, start_time, end_time, lifecycle_stage, "
        "artifact_uri, experiment_id) VALUES (?, ?, '', 'FINISHED', ?, ?, 'active', ?, ?)"
    )
    ids = [f"{number:032x}" for number in range(trials)]
    names = [(PARENT, "large"), *((run_id, f"trial {run_id}") for run_id in ids)]
    database.executemany(
        run,
        [(run_id, name, NOW, NOW + 10**6, f"{artifacts}/{run_id}", experiment) for run_id, name in names],
    )
    tags = [(PARENT, "kind", "study"), (PARENT, "study_uid", "large-0")]
    params: list[tuple[str, str, str]] = []
    for number, run_id in enumerate(ids):
        own = {"kind": "trial", "study_uid": "large-0", "mlflow.parentRunId": PARENT}
        tags += [(run_id, key, value) for key, value in own.items()]
        lr = 10 ** rng.uniform(-4, -2)
        values = {"model_size": "1", "seed": "0", "task": "walker-walk", "update.lr": f"{lr:.6g}"}
        params += [(run_id, key, value) for key, value in values.items()]
        metrics = list(_metrics(number, lr, points))
        log = "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, 0)"
        database.executemany(log, [(key, value, NOW + step, run_id, step) for key, value, step in metrics])
        latest = {key: (key, value, NOW + step, run_id, step) for key, value, step in metrics}
        database.executemany(log.replace("INTO metrics", "INTO latest_metrics"), latest.values())
    for table, rows in (("tags", tags), ("params", params)):
        database.executemany(f"INSERT INTO {table} (run_uuid, key, value) VALUES (?, ?, ?)", rows)


def _metrics(number: int, lr: float, points: int) -> Iterator[tuple[str, float, int]]:
    """Name, value and step."""
    end = 900 - 300 * abs(math.log10(lr) + 3) + number % 7
    for step in range(1000, 1000 * points + 1, 1000):
        progress = 1 - math.exp(-4 * step / (1000 * points))
        yield "eval/return", end * progress, step
        yield "time/env_steps", float(step), step
        yield "time/wall_s", step / 50, step
        yield "time/train_flops", 1e9 * step, step
        yield "time/act_flops", 12e9 * step, step
        yield "summary/params_total", 1e6, step


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
