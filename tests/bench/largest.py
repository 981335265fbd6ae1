"""What the largest model needs on a CPU: seconds and memory of one plan and one update.

    python tests/bench/largest.py --size 317

A process of its own, because the peak of its memory is what is measured. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from bench_core import ACTION, DISCOUNT, OBS, make_model, random_batch

from tdmpc_ray.core.agents.tdmpc2.functions import plan
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater
from tdmpc_ray.core.config import agent_config
from tdmpc_ray.core.planners import PlanNoise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", default="317")
    size = parser.parse_args().size
    torch.set_num_threads(1)
    agent, generator = agent_config(size), torch.Generator().manual_seed(0)
    model = make_model(size, agent)
    updater = Updater(model, agent.update, DISCOUNT)
    horizon, batch_size = agent.planner.horizon, agent.update.batch_size
    batch = random_batch(agent)

    def decide() -> None:
        model.eval()
        noise = PlanNoise.sample(model, agent.planner, 1, generator)
        with torch.no_grad():
            z = model.encode(torch.randn(1, OBS))
        prev_mean = torch.zeros(1, horizon, ACTION)
        plan(model, z, prev_mean, agent.planner, noise, discount=DISCOUNT, explore=True)

    def update() -> None:
        updater.step(batch, UpdateNoise.sample(model, horizon, batch_size, generator))

    print(
        json.dumps(
            {
                "size": size,
                "params": model.num_params(),
                "plan_s": seconds(decide),
                "update_s": seconds(update),
                "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            }
        )
    )


def seconds(task: Callable[[], None]) -> float:
    """CPU seconds of the second call; the first one allocates."""
    task()
    start = time.process_time()
    task()
    return time.process_time() - start


if __name__ == "__main__":
    main()
