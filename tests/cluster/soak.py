"""Trains for hours while env runners are killed; says what happened to throughput, memory and fragments.

    python tests/cluster/soak.py --csv docs/data/soak.csv --figure docs/images/soak.png

Four runners on walker-walk plan with a tiny model; every few minutes a random one is killed, and a checkpoint
is written. A line each minute; memory is that of all processes of the run, shared pages counted once.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import ray
import torch
from processes import family, memory_gib
from tiny import TINY

from tdmpc_ray.rllib import TDMPC2, TDMPC2Config

COLUMNS = ("minute", "steps_per_s", "updates_per_s", "memory_mib", "runners", "kills", "lost_fragments")


def build(runners: int) -> TDMPC2:
    config = TDMPC2Config().environment("walker-walk").env_runners(num_env_runners=runners)
    config.training(
        model_size="tiny",
        overrides={**TINY, "data.utd_ratio": 0.5, "data.seed_steps": 1000},
        steps_per_iteration=10**9,
        max_time_s_per_iteration=10.0,
    )
    return config.debugging(seed=0, log_level="ERROR").build_algo()


def runner_pids(algo: TDMPC2) -> list[int]:
    group = algo.env_runner_group
    return group.foreach_env_runner(lambda _: os.getpid(), local_env_runner=False, timeout_seconds=20.0)


def run(algo: TDMPC2, args: argparse.Namespace) -> list[dict[str, float]]:
    rng, rows, kills = random.Random(0), list[dict[str, float]](), 0
    started = minute = time.monotonic()
    kill_at = started + args.kill_every
    steps = updates = 0
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < started + 3600 * args.hours:
            algo.train()
            now = time.monotonic()
            if now >= kill_at:
                os.kill(rng.choice(runner_pids(algo)), signal.SIGKILL)
                kills, kill_at = kills + 1, now + args.kill_every
                algo.save_to_path(folder)
            if now - minute < 60:
                continue
            row = {
                "minute": (now - started) / 60,
                "steps_per_s": (algo.env_steps - steps) / (now - minute),
                "updates_per_s": (algo.grad_updates - updates) / (now - minute),
                "memory_mib": 1024 * memory_gib(family(os.getpid())),
                "runners": algo.env_runner_group.num_healthy_remote_workers(),
                "kills": kills,
                "lost_fragments": algo.progress.counters.lost_fragments,
            }
            steps, updates, minute = algo.env_steps, algo.grad_updates, now
            rows.append(row)
            print(" ".join(f"{row[name]:14.1f}" for name in COLUMNS), flush=True)
    return rows


def draw(rows: list[dict[str, float]], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    axes: Any = figure.subplots(3, 1, sharex=True)
    shown = (("steps_per_s", "agent steps per second"), ("memory_mib", "memory in MiB"))
    for axis, (name, label) in zip(axes, shown, strict=False):
        axis.plot([row["minute"] for row in rows], [row[name] for row in rows])
        axis.set(ylabel=label, ylim=(0, None))
    for name in ("kills", "lost_fragments"):
        axes[2].plot(
            [row["minute"] for row in rows], [row[name] for row in rows], label=name.replace("_", " ")
        )
    axes[2].set(xlabel="minutes", ylabel="count", ylim=(0, None))
    axes[2].legend(frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--runners", type=int, default=4)
    parser.add_argument("--kill-every", type=float, default=180.0, help="seconds")
    parser.add_argument("--warm-up", type=float, default=10.0, help="minutes before memory is compared")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    quiet = {"include_dashboard": False, "logging_level": "ERROR", "log_to_driver": False}
    ray.init(address="local", num_cpus=args.runners + 1, **quiet)
    print(" ".join(f"{name:>14}" for name in COLUMNS))
    algo = build(args.runners)
    rows = run(algo, args)
    algo.stop()
    ray.shutdown()
    if args.csv:
        with args.csv.open("w", newline="") as out:
            writer = csv.DictWriter(out, COLUMNS)
            writer.writeheader()
            writer.writerows({name: round(value, 2) for name, value in row.items()} for row in rows)
    if args.figure:
        draw(rows, args.figure)
    warm = [row for row in rows if row["minute"] > args.warm_up]
    if len(warm) >= 4:
        quarter = len(warm) // 4
        first, last = warm[:quarter], warm[-quarter:]
        for name in ("steps_per_s", "memory_mib"):
            before, after = (fmean(row[name] for row in part) for part in (first, last))
            print(f"{name}: {before:.1f} at first, {after:.1f} at last, {after / before - 1:+.1%}")
    print(f"{rows[-1]['kills']:.0f} kills, {rows[-1]['lost_fragments']:.0f} fragments lost")


if __name__ == "__main__":
    main()
