"""What hardware does in a second: measured on this machine, given, or taken from docs/scaling.md."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tdmpc_ray.core.agents import find_agent
from tdmpc_ray.core.config import agent_config
from tdmpc_ray.core.nn.threads import limit_threads
from tdmpc_ray.core.planners import PlanNoise
from tdmpc_ray.envs import task_info
from tdmpc_ray.envs.spaces import Shapes
from tdmpc_ray.rllib.learning.replay_memory import observed_shapes
from tdmpc_ray.studies.file.spec import Study

# Of docs/scaling.md.
LOOP_S, LOOP_ENV_S = 2e-3, 5e-5
START_S = 15.0  # of a core, for each process of a trial: its imports
STUDY_S = 16.0  # imports, MLflow's database, the random policy and Ray before trials, the figure after them
PLAN_S, UPDATE_S = 4e-3, 10e-3  # of a core, for the calls of a plan or an update, however small they are
GPU_TFLOPS, GPU_FLOOR_MS = 23.0, 5.0
_MEASURE_S = 1.0

Measured = Mapping[str, tuple["Speeds", Shapes]]  # by task


@dataclass(frozen=True)
class Speeds:
    """What the hardware does.

    Attributes:
        env_s: seconds that one environment takes for a step.
        core_flops: floating-point operations of a CPU core per second.
        gpu_flops: of a GPU.
        gpu_floor_s: least seconds of a plan or an update on a GPU, for starting its kernels.
        loop_s: seconds that a runner takes for each step of its vector beside environments and planner.
        loop_env_s: and for each environment in it.
        share: of each core that a process asks for, what it gets.
    """

    env_s: float
    core_flops: float
    gpu_flops: float
    gpu_floor_s: float
    loop_s: float = LOOP_S
    loop_env_s: float = LOOP_ENV_S
    share: float = 1.0

    def seconds(self, flops: float, cpus: float, gpus: float, call_s: float = 0.0) -> float:
        """Of work on a part of a GPU, or without one on CPU cores, or a part of one that others use, too.

        On cores, `call_s` (`PLAN_S` or `UPDATE_S`) is added for calls of small operations.
        """
        if gpus:
            return self.gpu_floor_s + flops / (self.gpu_flops * min(gpus, 1.0))
        return (call_s + flops / self.core_flops) / (cpus or 1.0) / self.share


def measure_speeds(
    study: Study,
    *,
    env_ms: float | None = None,
    core_gflops: float | None = None,
    gpu_tflops: float | None = None,
    gpu_floor_ms: float | None = None,
) -> Measured:
    """For each of its tasks, what is not given is measured on this machine; of GPUs, see docs/scaling.md."""
    core_flops = measure_core() if core_gflops is None else core_gflops * 1e9
    measured = {}
    for task in study.task_names:
        speeds = Speeds(
            env_s=measure_env(task, study.obs) if env_ms is None else env_ms / 1e3,
            core_flops=core_flops,
            gpu_flops=1e12 * (gpu_tflops or GPU_TFLOPS),
            gpu_floor_s=1e-3 * (GPU_FLOOR_MS if gpu_floor_ms is None else gpu_floor_ms),
        )
        measured[task] = speeds, observed_shapes(task_info(task), study.obs)
    return measured


def measure_env(task: str, obs: str) -> float:
    """Seconds that a step of the task takes on one core of this machine, resets included.

    Raises:
        UserError: the task cannot be built here.
    """
    from tdmpc_ray.envs import make_env

    env = make_env(task, seed=0, obs=obs)
    env.reset()
    steps, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < _MEASURE_S:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        steps += 1
        if terminated or truncated:
            env.reset()
    env.close()
    return seconds / steps


def measure_core() -> float:
    """Operations per second that a plan of size 1 reaches on one core of this machine."""
    limit_threads(1)
    cfg = agent_config("1")
    agent = find_agent(cfg.algorithm)
    networks = agent.make_networks((24,), 6, cfg.model, learns=False)
    mean = torch.zeros(1, cfg.planner.horizon, 6)
    noise = PlanNoise.sample(networks, cfg.planner, 1, torch.Generator().manual_seed(0))
    rounds, started = -1, time.perf_counter()
    with torch.no_grad():
        z = agent.encode(networks, torch.zeros(1, 24))
        while rounds < 1 or time.perf_counter() - started < _MEASURE_S:
            if rounds == 0:
                started = time.perf_counter()  # the first one is slower
            agent.decide(networks, z, mean, cfg.planner, noise, discount=0.99, explore=True)
            rounds += 1
    return rounds * agent.costs(networks, cfg).per_plan / (time.perf_counter() - started)
