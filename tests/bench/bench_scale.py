"""How env runners scale: environment steps per second with an environment that is slow, as robots are.

    make bench-scale                                        # 1 to 32 runners
    make bench-scale BENCH_ARGS="--runners 1 16 --seconds 20"

The environment sleeps for 20 ms a step; a tiny policy acts, so that what is measured is the dataflow: RLlib's
loop in the runners, their fragments' way to the learner, and its updates. Shares are of the first row's rate
per runner. CPU is that of all processes of the run, in cores; memory is theirs, shared pages counted once.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import gymnasium as gym
import numpy as np
import ray
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from processes import cpu_s, memory_gib
from tiny import TINY

from tdmpc_ray.rllib import TDMPC2, TDMPC2Config

STEP_S, EPISODE = 0.02, 250


class Slow(gym.Env):
    """Sleeps, and costs nothing else."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.observation_space = gym.spaces.Box(-1, 1, (24,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (6,), np.float32)
        self._obs = np.zeros(24, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        self._step = 0
        return self._obs, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        time.sleep(STEP_S)
        self._step += 1
        return self._obs, 0.0, False, self._step == EPISODE, {}


def build(runners: int, args: argparse.Namespace, size: str = "tiny", num_learners: int = 0) -> TDMPC2:
    settings = {"planner.method": "policy", "data.utd_ratio": args.ratio, "data.seed_steps": 500}
    config = TDMPC2Config().environment(Slow).env_runners(num_env_runners=runners)
    config.learners(num_learners=num_learners)
    config.training(
        model_size=size,
        overrides={**(TINY if size == "tiny" else {}), **settings},
        episode_length=EPISODE,
        steps_per_iteration=10**9,
        max_time_s_per_iteration=args.seconds,
    )
    return config.debugging(seed=0, log_level="ERROR").build_algo()


def start_ray(num_cpus: int) -> None:
    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )


def processes(algo: TDMPC2) -> list[Path]:
    """The main one with its learner, and the runners."""
    pids = algo.env_runner_group.foreach_env_runner(lambda _: os.getpid(), local_env_runner=False)
    return [Path(f"/proc/{pid}") for pid in (os.getpid(), *pids)]


def measure(runners: int, args: argparse.Namespace) -> tuple[float, str]:
    algo = build(runners, args)
    try:
        while algo.grad_updates == 0:
            algo.train()
        found = processes(algo)
        steps, updates, cpu, started = algo.env_steps, algo.grad_updates, cpu_s(found), time.perf_counter()
        report = algo.train()["report"]
        seconds = time.perf_counter() - started
        cpu = (cpu_s(found) - cpu) / seconds
        rate = (algo.env_steps - steps) / seconds
        mine, theirs, gib = cpu[0], cpu[1:].sum(), memory_gib(found)
        learned = (algo.grad_updates - updates) / seconds
        cells = (
            f"{mine:9.2f} {theirs:9.2f} {1e3 * theirs / rate:9.2f} {learned:9.1f} "
            f"{report['perf/learner_waits']:9.2f} {report['perf/sampler_waits']:9.2f} {gib:7.1f}"
        )
        return rate, cells
    finally:
        algo.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runners", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--ratio", type=float, default=0.05, help="updates per step")
    args = parser.parse_args()
    torch.set_num_threads(1)
    start_ray(max(args.runners) + 1)
    heads = ("main CPU", "run. CPU", "ms/step", "updates/s", "l. waits", "s. waits", "GiB")
    print(
        f"{'runners':>7} {'steps/s':>9} {'linear':>7} " + " ".join(f"{h:>9}" for h in heads[:-1]) + "     GiB"
    )
    first = None
    for runners in args.runners:
        rate, cells = measure(runners, args)
        first = first or rate / runners
        print(f"{runners:7} {rate:9.1f} {rate / (runners * first):7.1%} {cells}", flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
