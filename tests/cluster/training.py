"""Trains on a cluster whose address is given, and prints a line of JSON after each iteration."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "rllib"))

import ray
from conftest import TINY
from counting_env import CountingEnv

from tdmpc_ray.rllib import TDMPC2Config


def main(address: str, asynchronous: bool) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules["counting_env"])
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    overrides = {**TINY, "model.episodic": False, "data.seed_steps": 50, "planner.method": "policy"}
    config = TDMPC2Config().environment(CountingEnv)
    config.training(
        model_size="tiny",
        overrides=overrides,
        episode_length=12,
        steps_per_iteration=100,
        max_time_s_per_iteration=2.0,
        asynchronous=asynchronous,
    )
    config.env_runners(
        num_env_runners=2, num_cpus_per_env_runner=0, custom_resources_per_env_runner={"rollout": 1}
    )
    algo = config.debugging(seed=0, log_level="ERROR").build_algo()
    while True:
        started = time.time()
        algo.train()
        line = {
            "at": started,
            "seconds": time.time() - started,
            "steps": algo.env_steps,
            "runners": algo.env_runner_group.num_healthy_remote_workers(),
            "lost": algo.lost_fragments,
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "at-once")
