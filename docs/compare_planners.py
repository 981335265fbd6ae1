"""What a trained agent reaches with each planner, and how long a decision takes; prints the table.

python docs/compare_planners.py results/my-run --episodes 10
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import fmean, median, pstdev

import numpy as np
import torch

from tdmpc_ray.envs import make_env
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.evaluation.of_checkpoints import evaluate_checkpoint, load_agent

PLANNERS: dict[str, dict[str, object]] = {
    "MPPI": {"planner.method": "mppi"},
    "MPPI, bf16": {"planner.method": "mppi", "planner.dtype": "bf16"},
    "CEM": {"planner.method": "cem"},
    "gradient": {"planner.method": "gradient"},
    "policy alone": {"planner.method": "policy"},
}


def milliseconds(checkpoint: Path, settings: dict[str, object], decisions: int = 50) -> float:
    """Median time of one decision of one environment."""
    agent = load_agent(checkpoint, seed=0, settings=settings)
    assert agent.task is not None
    obs, _ = make_env(agent.task, seed=0).reset()
    times = []
    for step in range(decisions):
        began = time.perf_counter()
        agent.act(obs[None], np.array([step == 0]))
        times.append(1000 * (time.perf_counter() - began))
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--episodes", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| planner | return | standard deviation | ms per decision |\n|---|---|---|---|")
    for name, settings in PLANNERS.items():
        returns = evaluate_checkpoint(arguments.checkpoint, arguments.episodes, settings=settings)["returns"]
        ms = milliseconds(arguments.checkpoint, settings)
        print(f"| {name} | {fmean(returns):.0f} | {pstdev(returns):.0f} | {ms:.1f} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
