"""What a fragment costs the main process, with as many env runners as a large cluster has.

    python tests/bench/bench_driver.py                      # 10 and 100 runners

The runners are stand-ins that take 20 ms a step without planning anything, small enough for a hundred to fit
on a laptop; their requests, fragments and metrics are real ones, and so are the learner, in its own process,
and the loop in the main process, whose CPU time is measured. From it follows how many steps per second one
main process can hand on.
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import bench_scale
import numpy as np
import ray
import torch
from ray.rllib.utils.actor_manager import FaultTolerantActorManager

sys.path.insert(0, str(Path(__file__).parents[1]))

from tdmpc_ray.rllib.acting.fragments import take_summary
from tdmpc_ray.rllib.loop.env_runners import AsyncSampler, _ask
from tdmpc_ray.rllib.loop.fragment_length import FragmentLength

FRAGMENT = 25


class Plain(NamedTuple):
    """`Fragment`, without the imports of its module."""

    episode_id: str
    start: int
    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: bool = False
    done: bool = False
    task: int = 0


class StandIn:
    """Answers like an env runner."""

    def __init__(self, name: int, told: bytes, seconds: float) -> None:
        self._name, self._told, self._seconds, self._step = str(name), told, seconds, 0

    def sample(self, weights: Any) -> list[Plain]:
        time.sleep(self._seconds)
        self._step += FRAGMENT
        sizes = ((FRAGMENT + 1, 24), (FRAGMENT, 6), (FRAGMENT,))
        return [Plain(self._name, self._step - FRAGMENT, *(np.zeros(size, np.float32) for size in sizes))]

    def tell(self) -> bytes:
        return self._told


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Handle:
    """Turns the calls to a runner into those to its stand-in; `apply.remote` as of an actor's handle."""

    def __init__(self, actor: Any) -> None:
        self._actor, self.apply = actor, self

    def remote(self, func: Any) -> ray.ObjectRef:
        if func.keywords:  # `sample_for_learner`
            weights = func.keywords["weights"]
            return self._actor.sample.remote(weights and weights.state)
        return self._actor.tell.remote()


class Group:
    """The part of RLlib's `EnvRunnerGroup` that the loop uses."""

    def __init__(self, actors: list[Any]) -> None:
        self._worker_manager = FaultTolerantActorManager(
            [Handle(actor) for actor in actors], max_remote_requests_in_flight_per_actor=2, init_id=1
        )
        self.healthy_env_runner_ids = self._worker_manager.healthy_actor_ids

    def foreach_env_runner_async(self, call: Any, *, tag: str, remote_worker_ids: list[int]) -> int:
        return self._worker_manager.foreach_actor_async(call, tag=tag, remote_actor_ids=remote_worker_ids)

    def fetch_ready_async_reqs(self, *, tags: str, timeout_seconds: float) -> list[tuple[int, Any]]:
        results = self._worker_manager.fetch_ready_async_reqs(tags=tags, timeout_seconds=timeout_seconds)
        return [(r.actor_id, pickle.loads(r.get())._replace(runner=r.actor_id)) for r in results if r.ok]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runners", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--seconds", type=float, default=5.0, help="per round; the first is not counted")
    parser.add_argument("--rounds", type=int, default=6)
    args = parser.parse_args()
    args.ratio = 0.02
    torch.set_num_threads(1)
    bench_scale.start_ray(4)
    heads = ("runners", "fragments/s", "steps/s", "CPU ms", "steps/s max")
    print(" ".join(f"{head:>12}" for head in heads))
    algo = bench_scale.build(1, args, num_learners=1)
    algo.train()
    _ask(algo.env_runner_group, 1, FRAGMENT)
    told = pickle.dumps(algo.env_runner_group.foreach_env_runner(take_summary, local_env_runner=False)[0])
    algo._loop.discard()
    kind = ray.remote(num_cpus=0)(StandIn)
    for runners in args.runners:
        seconds = FRAGMENT * bench_scale.STEP_S
        actors = [kind.remote(number, told, seconds) for number in range(runners)]
        ray.get([actor.tell.remote() for actor in actors])
        algo._loop._runners = group = Group(actors)
        algo._loop._sampler = AsyncSampler(group)
        algo._loop._fragment = FragmentLength(FRAGMENT, FRAGMENT)
        algo.progress.pace.lead = 2 * FRAGMENT * runners
        algo._loop.run()
        steps, cpu, started = algo.env_steps, time.process_time(), time.perf_counter()
        for _ in range(args.rounds):
            algo._loop.run()
        cpu, seconds = time.process_time() - cpu, time.perf_counter() - started
        fragments = (algo.env_steps - steps) / FRAGMENT
        rate, cost = fragments / seconds, cpu / fragments
        print(
            f"{runners:12} {rate:12.1f} {rate * FRAGMENT:12.0f} {1e3 * cost:12.2f} {FRAGMENT / cost:12.0f}",
            flush=True,
        )
        algo._loop.discard()
        for actor in actors:
            ray.kill(actor)
    algo.stop()
    ray.shutdown()


if __name__ == "__main__":
    main()
