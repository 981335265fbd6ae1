"""What env runners that feed a learner cost it: its updates per second beside them and alone.

    python tests/bench/bench_learner.py [--runners 8] [--rounds 3] [--seconds 15]

The environments sleep for 20 ms a step, so that the runners leave the learner a core of its own where there
are two; the ratio of updates to steps is such that neither waits for the other. The learner works in the main
process, which also gives the orders, or in one of its own. It is measured alone, and beside runners that play
for nobody: cores share caches, and two hardware threads of one core its units. The share is of the latter.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Any

import bench_scale
import ray
import torch

from tdmpc_ray.rllib import TDMPC2
from tdmpc_ray.rllib.learning.learner import AgentLearner


def updates_per_s(learner: AgentLearner, seconds: float) -> float:
    """Alone: runs in the learner's process."""
    number, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        learner.learn(20)
        number += 20
    return number / spent


def play(runner: Any, seconds: float) -> None:
    """Runs on an env runner."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        runner.sample(num_timesteps=25)


def fed(algo: TDMPC2) -> tuple[float, float, float]:
    """Updates and agent steps per second in one iteration, and the share of it that the learner waited."""
    steps, updates, started = algo.env_steps, algo.grad_updates, time.perf_counter()
    report = algo.train()["report"]
    seconds = time.perf_counter() - started
    rates = (algo.grad_updates - updates) / seconds, (algo.env_steps - steps) / seconds
    return *rates, report["perf/learner_waits"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runners", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--sizes", nargs="+", default=["tiny", "1"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    bench_scale.start_ray(args.runners + 2)
    heads = ("size", "learner", "alone/s", "beside/s", "fed/s", "share", "steps/s", "waits")
    print(" ".join(f"{head:>8}" for head in heads))
    for size in args.sizes:
        for num_learners in (0, 1):
            args.ratio = 1.0
            algo = bench_scale.build(args.runners, args, size=size, num_learners=num_learners)
            actors = list(algo.env_runner_group._worker_manager.actors().values())
            while algo.grad_updates == 0:
                algo.train()
            rows = []
            for _ in range(args.rounds):
                algo._loop.drain()
                time.sleep(2)  # what is in flight is played to its end
                alone = algo.link.call(updates_per_s, seconds=args.seconds / 3)
                playing = [actor.apply.remote(play, seconds=args.seconds + 1) for actor in actors]
                time.sleep(1)
                beside = algo.link.call(updates_per_s, seconds=args.seconds)
                ray.get(playing)
                if not rows:  # a bit less than the runners can take
                    algo.progress.pace.ratio = beside / (0.8 * args.runners / bench_scale.STEP_S)
                algo.train()  # catches up, and fills what is in flight
                rows.append((alone, beside, *fed(algo)))
            alone, beside, rate, steps, waits = (median(column) for column in zip(*rows, strict=True))
            share = median(row[2] / row[1] for row in rows)
            where = "its own" if num_learners else "main"
            cells = f"{alone:8.1f} {beside:8.1f} {rate:8.1f} {share:8.1%} {steps:8.1f} {waits:8.2f}"
            print(f"{size:>8} {where:>8} {cells}", flush=True)
            algo.stop()
    ray.shutdown()


if __name__ == "__main__":
    main()
