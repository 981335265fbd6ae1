"""How fast plans and updates of TD-MPC are, beside a straightforward implementation; CPU milliseconds.

    python tests/bench/bench_tdmpc.py [--seconds 20]

One thread, at the published sizes on walker-walk. Competitors take turns: a noisy machine is noisy to both.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import reference_tdmpc
from turns import cpu_name, take_turns

from tdmpc_ray.core.agents import find_agent
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import agent_config
from tdmpc_ray.core.nn import kernels
from tdmpc_ray.core.planners import PlanNoise

OBS, ACTION = 24, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kernels.keep_freed_memory()
    agent, cfg = find_agent("tdmpc"), agent_config("1", algorithm="tdmpc")
    networks, generator = agent.make_networks((OBS,), ACTION, cfg.model), torch.Generator().manual_seed(0)
    simple = reference_tdmpc.Model(OBS, ACTION, cfg.model)
    obs, prev_mean = torch.randn(1, OBS), torch.zeros(1, cfg.planner.horizon, ACTION)

    def plan(dtype: str) -> object:
        planner = replace(cfg.planner, dtype=dtype)
        with torch.no_grad():
            noise = PlanNoise.sample(networks, planner, 1, generator)
            z = agent.encode(networks, obs)
            return agent.decide(networks, z, prev_mean, planner, noise, discount=0.99, explore=True)

    size, horizon = cfg.update.batch_size, cfg.planner.horizon
    batch = Batch(
        torch.randn(horizon + 1, size, OBS),
        torch.rand(horizon, size, ACTION) * 2 - 1,
        torch.rand(horizon, size, 1),
        torch.zeros(horizon, size, 1),
    )
    updaters = {}
    for dtype in ("fp32", "bf16"):
        own = agent.make_networks((OBS,), ACTION, cfg.model)
        update = replace(cfg.update, dtype=dtype)
        updaters[dtype] = agent.make_updater(own, update, 0.99, agent.make_optimizers(own, update), None)
    theirs = reference_tdmpc.Update(simple, cfg.update, 0.99)

    def step(dtype: str) -> object:
        return updaters[dtype].step(batch, agent.draw_update(networks, horizon, size, generator))

    tasks = {
        "plan": {
            "straightforward": lambda: reference_tdmpc.plan(simple, obs[0], prev_mean[0], cfg.planner, 0.99),
            **{dtype: lambda dtype=dtype: plan(dtype) for dtype in ("fp32", "bf16")},
        },
        "update": {
            "straightforward": lambda: theirs.step(batch),
            **{dtype: lambda dtype=dtype: step(dtype) for dtype in ("fp32", "bf16")},
        },
    }
    print(cpu_name())
    for name, competitors in tasks.items():
        times = take_turns(competitors, seconds)
        for way, cpu_ms in times.items():
            print(f"{name:8}{way:18}{cpu_ms:9.1f} ms{cpu_ms / times['straightforward']:8.2f}")


if __name__ == "__main__":
    main()
