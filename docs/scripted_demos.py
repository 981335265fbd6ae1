"""Record episodes of Meta-World's scripted policies, as demonstrations for a first agent.

    python docs/scripted_demos.py mw-drawer-open 10 demos/scripted-drawer-open [--noise 0.1]

Only episodes with success are kept. The results of docs/results.md learn from an agent's own episodes, which
`evaluate --record` writes; that agent began with these.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import metaworld.policies
import numpy as np

from tdmpc_ray.datasets.episode import EpisodeRecord
from tdmpc_ray.envs import make_env, task_info


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("episodes", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--noise", type=float, default=0.1, help="standard deviation, on every action")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prefix", default="", help="of the files' names")
    args = parser.parse_args()
    env, random = make_env(args.task, seed=args.seed), np.random.default_rng(args.seed)
    name = "".join(part.title() for part in re.split("-", task_info(args.task).simulator_id))
    policy = getattr(metaworld.policies, f"Sawyer{name}Policy")()
    kept = played = 0
    while kept < args.episodes and played < 10 * args.episodes:
        obs, _ = env.reset()
        record, over = EpisodeRecord(obs), False
        while not over:
            # The policy knows the two inner steps of an agent step as one.
            action = np.clip(policy.get_action(obs.astype(np.float64)), -1, 1)
            action = np.clip(action + args.noise * random.standard_normal(action.shape), -1, 1)
            obs, reward, _, over, info = env.step(action.astype(np.float32))
            record.add(obs, action, float(reward))
        played += 1
        if info["success"]:
            record.save(
                args.folder / f"{args.prefix}{kept:03d}.npz", terminated=False, task=args.task, success=True
            )
            kept += 1
    print(f"{kept} of {played} episodes had success: {args.folder}")


if __name__ == "__main__":
    main()
