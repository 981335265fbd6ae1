"""What RLlib's loop costs beside a bare one on `core`: the same tiny agent on walker-walk, in one process.

    python tests/bench/bench_loop.py [--rounds 5] [--steps 500] [--size tiny] [--fragment 1]

CPU milliseconds per agent step on one thread, medians over rounds in which both loops take turns. One update
per step in both. What is left of RLlib's loop beside the parts that both have is RLlib's own.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
import ray
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import TINY

from tdmpc_ray.core.agents.tdmpc2.functions import plan
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.planners import PlanNoise
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.envs import make_env
from tdmpc_ray.rllib import TDMPC2Config

TASK, SEED_STEPS = "walker-walk", 1000
PARTS = ("environment", "plan", "replay", "update")
COLUMNS = (*PARTS, "rest", "all")
Seconds = dict[str, float]


def config(num_envs: int, size: str, fragment: int | None = None) -> TDMPC2Config:
    settings = {"data.seed_steps": SEED_STEPS, **(TINY if size == "tiny" else {})}
    built = TDMPC2Config().environment(TASK)
    built.training(model_size=size, preset="light", overrides=settings)
    built.env_runners(num_envs_per_env_runner=num_envs, rollout_fragment_length=fragment or "auto")
    return built.debugging(seed=0, log_level="ERROR")


class Bare:
    """The paper's loop, written down with what `core` has."""

    def __init__(self, num_envs: int, size: str) -> None:
        agent = config(num_envs, size).agent()
        self.agent, self.num_envs = agent, num_envs
        self.envs = [make_env(TASK) for _ in range(num_envs)]
        spaces = self.envs[0]
        self.model = WorldModel(
            spaces.observation_space.shape, spaces.action_space.shape[0], agent.model, target=True
        )
        self.discount = agent.update.discount(500)
        self.updater = Updater(self.model, agent.update, self.discount)
        shape = (spaces.observation_space.shape, self.model.action_dim, agent.planner.horizon)
        self.replay = SequenceReplay(agent.data.capacity, *shape)
        self.generator, self.rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
        self.obs = [env.reset(seed=i)[0] for i, env in enumerate(self.envs)]
        self.steps_of = [0] * num_envs
        self.names = [f"{i}-0" for i in range(num_envs)]
        self.mean = torch.zeros(num_envs, agent.planner.horizon, self.model.action_dim)
        self.random = True
        self.run(SEED_STEPS)
        self.random = False

    def run(self, steps: int) -> Seconds:
        """Take agent steps, each followed by an update; seconds of each part."""
        spent: Seconds = defaultdict(float)
        began = last = time.process_time()

        def lap(part: str) -> None:
            nonlocal last
            now = time.process_time()
            spent[part] += now - last
            last = now

        for _ in range(steps // self.num_envs):
            actions = self.act()
            lap("plan")
            for i, env in enumerate(self.envs):
                obs, reward, terminated, truncated, _ = env.step(actions[i])
                lap("environment")
                done = terminated or truncated
                pair, one = np.stack([self.obs[i], obs]), np.array([reward], np.float32)
                fragment = (self.names[i], self.steps_of[i], pair, actions[i : i + 1], one)
                self.replay.add(*fragment, terminated=terminated, done=done)
                self.obs[i], self.steps_of[i] = obs, self.steps_of[i] + 1
                if done:
                    self.obs[i], self.steps_of[i] = env.reset()[0], 0
                    self.names[i] = f"{i}-{self.replay.transitions_added}"
                    self.mean[i] = 0.0
                lap("replay")
            if not self.random:
                for _ in range(self.num_envs):
                    self.update()
                lap("update")
        spent["all"] = time.process_time() - began
        return spent

    @torch.no_grad()
    def act(self) -> np.ndarray:
        cfg = self.agent.planner
        if self.random:
            return self.rng.uniform(-1, 1, (self.num_envs, self.model.action_dim)).astype(np.float32)
        z = self.model.encode(torch.from_numpy(np.stack(self.obs)))
        noise = PlanNoise.sample(self.model, cfg, self.num_envs, self.generator)
        decided = plan(self.model, z, self.mean, cfg, noise, discount=self.discount, explore=True)
        self.mean = decided.mean
        return decided.action.numpy()

    def update(self) -> None:
        size = self.agent.update.batch_size
        batch = self.replay.sample(size, self.rng)
        self.updater.step(batch, UpdateNoise.sample(self.model, batch.horizon, size, self.generator))


class Rllib:
    """TDMPC2 in local mode, its parts timed from outside."""

    def __init__(self, num_envs: int, size: str, fragment: int | None) -> None:
        self.algo = config(num_envs, size, fragment).build_algo()
        self.spent: Seconds = defaultdict(float)
        learner, runner = self.algo.learner_group._learner, self.algo.env_runner
        self.time("plan", runner.module.unwrapped(), "act")
        self.time("replay", learner.replay, "add")
        self.time("update", learner._loop, "run")
        for env in runner.env.unwrapped.envs:
            self.time("environment", env, "step")
        while self.algo.grad_updates < SEED_STEPS:
            self.algo.train()

    def time(self, part: str, owner: Any, name: str) -> None:
        call: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.spent[part] += time.process_time() - started

        setattr(owner, name, timed)

    def run(self, steps: int) -> Seconds:
        self.spent.clear()
        before, started = self.algo.env_steps, time.process_time()
        while self.algo.env_steps < before + steps:
            self.algo.train()
        taken = self.algo.env_steps - before
        all_ = time.process_time() - started
        return {part: s * steps / taken for part, s in {**self.spent, "all": all_}.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--fragment", type=int, help="steps of each environment between updates")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    print(f"{'envs':>5} {'loop':6} " + " ".join(f"{part:>12}" for part in COLUMNS))
    for num_envs in (1, 16):
        loops = {"core": Bare(num_envs, args.size), "rllib": Rllib(num_envs, args.size, args.fragment)}
        times: dict[str, list[Seconds]] = {name: [] for name in loops}
        for _ in range(args.rounds):
            for name, loop in loops.items():
                times[name].append(loop.run(args.steps))
        rows: dict[str, Seconds] = {}
        for name, taken in times.items():
            for spent in taken:
                spent["rest"] = spent["all"] - sum(spent[part] for part in PARTS)
            rows[name] = {part: 1e3 * median(t[part] for t in taken) / args.steps for part in COLUMNS}
        rows["more"] = {part: rows["rllib"][part] - rows["core"][part] for part in COLUMNS}
        for name, row in rows.items():
            print(f"{num_envs:5} {name:6} " + " ".join(f"{row[part]:12.3f}" for part in COLUMNS))
        loops["rllib"].algo.stop()
    ray.shutdown()


if __name__ == "__main__":
    main()
