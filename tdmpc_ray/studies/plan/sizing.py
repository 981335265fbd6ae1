"""How fast a study's trials run on given hardware, what holds them back, and how many env runners balance it.

A trial is two streams in step with one another: runners that sample, and a learner that updates. The slower
one sets the rate. docs/scaling.md holds this beside measured rates.
"""

from __future__ import annotations

import heapq
import json
import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from tdmpc_ray.core.agents import find_agent, find_settings
from tdmpc_ray.core.agents.agent import Costs
from tdmpc_ray.core.config import AgentConfig, DataConfig, agent_config
from tdmpc_ray.envs.spaces import Shapes
from tdmpc_ray.studies.file.points import RESOURCES, Point
from tdmpc_ray.studies.file.sections import Resources
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.plan.speeds import PLAN_S, START_S, STUDY_S, UPDATE_S, Measured

_NEAR = 1.02  # fewer runners are better where more would save less than this


@dataclass(frozen=True)
class Trial:
    """One trial of a study: what its parts take, in seconds.

    Attributes:
        point: what it tries.
        num_params: trainable parameters.
        plan_s: of one decision for one environment.
        step_s: of a step of a runner's whole vector.
        update_s: of one gradient update.
        plan_flops, update_flops: floating-point operations of one decision and of one update.
        ratio: updates per agent step.
        seed_steps: agent steps before the first update.
        evaluation_s: that training waits for evaluations and films, in all.
        start_s: before its first step.
        is_offline: it takes no steps but updates.
    """

    point: Point
    num_params: int
    plan_s: float
    step_s: float
    update_s: float
    plan_flops: int
    update_flops: int
    ratio: float
    seed_steps: int
    evaluation_s: float
    start_s: float
    is_offline: bool = False

    @property
    def resources(self) -> Resources:
        """What it gets."""
        return self.point.resources

    @property
    def sampling(self) -> float:
        """Agent steps per second that the runners could take."""
        return max(self.resources.num_env_runners, 1) * self.resources.num_envs_per_env_runner / self.step_s

    @property
    def learning(self) -> float:
        """Agent steps per second that the learner could keep up with."""
        return 1 / (self.update_s * self.ratio)

    @property
    def rate(self) -> float:
        """Agent steps per second once learning has begun; of offline trials, updates."""
        if self.is_offline:
            return 1 / self.update_s
        if is_asynchronous(self.resources):
            return min(self.sampling, self.learning)
        return 1 / (1 / self.sampling + 1 / self.learning)

    @property
    def balance(self) -> int:
        """Env runners whose sampling the learner just keeps up with."""
        return math.ceil(self.learning * self.step_s / self.resources.num_envs_per_env_runner)

    @property
    def train_flops(self) -> float:
        """Of all updates: as many as there are random steps, then the ratio."""
        if self.is_offline:
            return self.update_flops * float(self.point.steps)
        random = min(self.seed_steps, self.point.steps)
        learns = self.point.steps > self.seed_steps
        return self.update_flops * (learns * random + (self.point.steps - random) * self.ratio)

    @property
    def act_flops(self) -> float:
        """Of all plans, without evaluations."""
        if self.is_offline:
            return 0.0
        return self.plan_flops * float(max(self.point.steps - self.seed_steps, 0))

    @property
    def hours(self) -> float:
        """Of the whole trial: its start, random steps, as many updates, the rest, evaluations."""
        if self.is_offline:
            return (self.start_s + self.point.steps / self.rate + self.evaluation_s) / 3600
        random = min(self.seed_steps, self.point.steps)
        learns = self.point.steps > self.seed_steps
        # What a plan takes is of no account while actions are random.
        unplanned = 1 - self.plan_s * self.resources.num_envs_per_env_runner / self.step_s
        begin = random / self.sampling * unplanned + learns * random * self.update_s
        return (self.start_s + begin + (self.point.steps - random) / self.rate + self.evaluation_s) / 3600


@lru_cache(maxsize=4096)  # points of a study, which is predicted with many numbers of runners
def _agent(task: str, obs: str, size: str, preset: str, settings: str, algorithm: str) -> AgentConfig:
    """Settings as JSON, because a schedule has no hash; with those that the task decides."""
    from tdmpc_ray.envs import task_info

    tasks = [(task_info(name).suite, name) for name in task_info(task).tasks or (task,)]
    by_task = find_settings(algorithm).of_tasks(tasks, obs, preset)
    return agent_config(size, preset, {**by_task, **json.loads(settings)}, algorithm)


@lru_cache
def _costs(cfg: AgentConfig, shapes: Shapes) -> tuple[int, Costs]:
    """Parameters, and operations of plans and updates."""
    agent = find_agent(cfg.algorithm)
    with torch.device("meta"):  # no memory: the largest would take 2 GB
        networks = agent.make_networks(
            shapes.obs_shape, shapes.action_dim, cfg.model, vector_dim=shapes.vector_dim
        )
    return networks.num_params(), agent.costs(networks, cfg)


def predict(study: Study, point: Point, measured: Measured) -> Trial:
    """Of a trial at a point of its study."""
    from tdmpc_ray.envs import task_info

    info, resources, evaluation = task_info(point.task), point.resources, study.evaluation
    speeds, sizes = measured[point.task]
    settings = json.dumps(point.settings, sort_keys=True)
    agent = _agent(point.task, study.obs, point.model_size, study.preset, settings, point.algorithm)
    # Alike for all that differ in nothing that costs anything, such as learning rates.
    update = type(agent.update)(batch_size=agent.update.batch_size)
    num_params, (flops, learning) = _costs(replace(agent, data=DataConfig(), update=update), sizes)
    num_envs = resources.num_envs_per_env_runner
    beside_gpus = resources.gpus_per_learner if resources.num_learners == 0 else 0  # of the main process
    cpus, gpus = resources.cpus_per_env_runner, resources.gpus_per_env_runner
    if resources.num_env_runners == 0:
        cpus, gpus = resources.cpus_for_main_process, beside_gpus
    plan_s = speeds.seconds(num_envs * flops, cpus, gpus, PLAN_S) / num_envs
    env_s = speeds.env_s / speeds.share
    alone_s = env_s + speeds.seconds(flops, 1, beside_gpus, PLAN_S)  # evaluation by the main process
    learners, tasks = max(resources.num_learners, 1), max(len(info.tasks), 1)
    played = 0 if evaluation.runners else evaluation.episodes * math.ceil(point.steps / evaluation.every)
    episodes = tasks * (played + evaluation.videos)  # films are made by the main process in any case
    return Trial(
        point=point,
        num_params=num_params,
        plan_s=plan_s,
        step_s=num_envs * (plan_s + env_s + speeds.loop_env_s) + speeds.loop_s,
        update_s=speeds.seconds(
            learning / learners,
            resources.cpus_for_main_process if resources.num_learners == 0 else 1,
            resources.gpus_per_learner,
            UPDATE_S,
        ),
        plan_flops=flops,
        update_flops=learning,
        ratio=agent.data.utd_ratio,
        seed_steps=agent.data.num_seed_steps(info.episode_length, tasks),
        evaluation_s=episodes * info.episode_length * alone_s,
        start_s=start_seconds(resources, evaluation.runners) / speeds.share,
        is_offline=study.is_offline,
    )


@dataclass(frozen=True)
class Forecast:
    """A study on a cluster.

    Attributes:
        trials: one for each point of the study.
        at_once: trials that run at the same time; 0: the cluster cannot hold one.
        hours: of the study; infinite where no trial fits.
    """

    trials: tuple[Trial, ...]
    at_once: int
    hours: float

    @property
    def runners(self) -> str:
        """Env runners per trial, `2` or `1 to 8`."""
        numbers = {trial.resources.num_env_runners for trial in self.trials}
        return " to ".join(map(str, sorted({min(numbers), max(numbers)})))


def forecast(study: Study, measured: Measured, cpus: float, gpus: float, most: int | None = None) -> Forecast:
    """Predict a study as its file says.

    Args:
        study: its trials count as if each took what the largest does.
        measured: of its tasks.
        cpus, gpus: of the cluster.
        most: trials that it has memory for at once; None: any number.
    """
    trials = tuple(predict(study, point, measured) for point in study.points())
    each = [needs(trial.resources, study.evaluation.runners) for trial in trials]
    need = (max(cpus for cpus, _ in each), max(gpus for _, gpus in each))
    fits = [math.floor(has / most) for has, most in zip((cpus, gpus), need, strict=True) if most]
    limits = [*fits, study.trials(), study.resources.max_concurrent_trials or study.trials()]
    at_once = min(limits if most is None else [*limits, most])
    # The longest first, each where a place is free; what Tune does is no better.
    per_point = study.trials() // len(trials)
    places = [0.0] * at_once
    for trial in sorted(trials, key=lambda t: -t.hours):
        for _ in range(per_point):
            if places:
                heapq.heapreplace(places, places[0] + trial.hours)
    return Forecast(trials, at_once, max(places, default=math.inf) + STUDY_S / 3600)


def best(study: Study, measured: Measured, cpus: float, gpus: float, most: int | None = None) -> Forecast:
    """The same study with the number of env runners under which it ends first; of equals, the fewest."""
    found = forecast(study, measured, cpus, gpus, most)
    if study.is_offline or f"{RESOURCES}num_env_runners" in study.space:  # the study itself compares them
        return found
    balance = max(trial.balance for trial in found.trials)
    for runners in range(1, int(min(balance, cpus)) + 1):
        resources = study.resources.model_copy(update={"num_env_runners": runners})
        other = forecast(study.model_copy(update={"resources": resources}), measured, cpus, gpus, most)
        if other.hours * _NEAR < found.hours:
            found = other
    return found


def is_asynchronous(resources: Resources) -> bool:
    """Whether sampling and learning go on at once, as in `TDMPC2Config`."""
    return resources.num_env_runners > 0 if resources.asynchronous is None else resources.asynchronous


def start_seconds(resources: Resources, evaluation_runners: int) -> float:
    """Seconds until a trial's processes have begun: the main one, then the others on the cores it gets."""
    others = resources.num_env_runners + resources.num_learners + evaluation_runners
    cpus, _ = needs(resources, evaluation_runners)
    return START_S * (1 + max(others / max(cpus, 1.0), 1.0 if others else 0.0))


def needs(resources: Resources, evaluation_runners: int) -> tuple[float, float]:
    """CPUs and GPUs that Ray reserves for one trial."""
    runners = resources.num_env_runners + evaluation_runners
    learners = 0 if resources.gpus_per_learner else resources.num_learners  # RLlib: a GPU, or else a CPU
    cpus = resources.cpus_for_main_process + runners * resources.cpus_per_env_runner + learners
    gpus = max(resources.num_learners, 1) * resources.gpus_per_learner
    return cpus, gpus + runners * resources.gpus_per_env_runner
