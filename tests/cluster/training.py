"""Trains on a cluster whose address is given, and prints a line of JSON after each iteration."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "rllib"))

import ray
from test_rllib_nodes import build
from tiny import TINY


def main(address: str, asynchronous: bool) -> None:
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    algo = build(dict(TINY), asynchronous)
    while True:
        started = time.time()
        algo.train()
        line = {
            "at": started,
            "seconds": time.time() - started,
            "steps": algo.env_steps,
            "runners": algo.env_runner_group.num_healthy_remote_workers(),
            "lost": algo.progress.counters.lost_fragments,
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "at-once")
