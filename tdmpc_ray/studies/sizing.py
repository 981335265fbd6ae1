"""How fast a study's trials run on given hardware, what holds them back, and how many env runners balance it.

A trial is two streams in step with one another: runners that sample, and a learner that updates. The slower
one sets the rate. docs/scaling.md holds this beside measured rates.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from tdmpc_ray.core.config import AgentConfig, agent_config
from tdmpc_ray.core.cost import plan_flops, update_flops
from tdmpc_ray.core.world_model import WorldModel
from tdmpc_ray.studies.sections import Resources
from tdmpc_ray.studies.spec import Study
from tdmpc_ray.studies.speeds import Sizes, Speeds

_NEAR = 1.02  # fewer runners are better where more would save less than this


@dataclass(frozen=True)
class Trial:
    """One trial of a study: what its parts take, in seconds.

    Attributes:
        model_size: its name.
        num_params: trainable parameters.
        plan_s: of one decision for one environment.
        step_s: of a step of a runner's whole vector.
        update_s: of one gradient update.
        plan_flops, update_flops: floating-point operations of one decision and of one update.
        ratio: updates per agent step.
        steps, seed_steps: agent steps in all, and those before the first update.
        evaluation_s: that training waits for evaluations, in all.
        resources: as in the study file.
    """

    model_size: str
    num_params: int
    plan_s: float
    step_s: float
    update_s: float
    plan_flops: int
    update_flops: int
    ratio: float
    steps: int
    seed_steps: int
    evaluation_s: float
    resources: Resources

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
        """Agent steps per second once learning has begun."""
        if is_asynchronous(self.resources):
            return min(self.sampling, self.learning)
        return 1 / (1 / self.sampling + 1 / self.learning)

    @property
    def held_back_by(self) -> str:
        return "sampling" if self.sampling < self.learning else "learning"

    @property
    def balance(self) -> int:
        """Env runners whose sampling the learner just keeps up with."""
        return math.ceil(self.learning * self.step_s / self.resources.num_envs_per_env_runner)

    @property
    def train_flops(self) -> float:
        """Of all updates: as many as there are random steps, then the ratio."""
        random = min(self.seed_steps, self.steps)
        learns = self.steps > self.seed_steps
        return self.update_flops * (learns * random + (self.steps - random) * self.ratio)

    @property
    def act_flops(self) -> float:
        """Of all plans, without evaluations."""
        return self.plan_flops * float(max(self.steps - self.seed_steps, 0))

    @property
    def hours(self) -> float:
        """Of the whole trial: random steps, as many updates, the rest, evaluations."""
        random = min(self.seed_steps, self.steps)
        learns = self.steps > self.seed_steps
        # What a plan takes is of no account while actions are random.
        unplanned = 1 - self.plan_s * self.resources.num_envs_per_env_runner / self.step_s
        begin = random / self.sampling * unplanned + learns * random * self.update_s
        return (begin + (self.steps - random) / self.rate + self.evaluation_s) / 3600


@lru_cache
def _costs(agent: AgentConfig, sizes: Sizes) -> tuple[int, int, int]:
    """Parameters, operations of a plan, operations of an update."""
    with torch.device("meta"):  # no memory: the largest would take 2 GB
        model = WorldModel(*sizes, agent.model)
    planning, learning = (
        plan_flops(model, agent.planner),
        update_flops(model, agent.update, agent.planner.horizon),
    )
    return model.num_params(), planning, learning


def predict(
    study: Study, model_size: str, speeds: Speeds, sizes: Sizes, settings: Mapping[str, Any] | None = None
) -> Trial:
    """Of a trial with this model size and these settings; None: the study's fixed ones."""
    from tdmpc_ray.envs import task_info

    info, resources, evaluation = task_info(study.task), study.resources, study.evaluation
    agent = agent_config(model_size, study.preset, study.settings() if settings is None else settings)
    num_params, flops, learning = _costs(agent, sizes)
    num_envs = resources.num_envs_per_env_runner
    cpus, gpus = resources.cpus_per_env_runner, resources.gpus_per_env_runner
    plan_s = speeds.seconds(num_envs * flops, cpus, gpus) / num_envs
    alone_s = speeds.env_s + speeds.seconds(flops, 1, 0)  # evaluation by the main process
    learners = max(resources.num_learners, 1)
    episodes = evaluation.episodes * max(len(info.tasks), 1) * math.ceil(study.steps / evaluation.every)
    return Trial(
        model_size=model_size,
        num_params=num_params,
        plan_s=plan_s,
        step_s=num_envs * (plan_s + speeds.env_s + speeds.loop_env_s) + speeds.loop_s,
        update_s=speeds.seconds(
            learning / learners,
            resources.cpus_for_main_process if resources.num_learners == 0 else 1,
            resources.gpus_per_learner,
        ),
        plan_flops=flops,
        update_flops=learning,
        ratio=agent.data.utd_ratio,
        steps=study.steps,
        seed_steps=agent.data.num_seed_steps(info.episode_length),
        evaluation_s=0.0 if evaluation.runners else episodes * info.episode_length * alone_s,
        resources=resources,
    )


@dataclass(frozen=True)
class Forecast:
    """A study on a cluster.

    Attributes:
        resources: that each trial gets.
        trials: one for each model size, with the fixed settings.
        points: one for each model size and point of the grids.
        at_once: trials that run at the same time; 0: the cluster cannot hold one.
        hours: of the study; infinite where no trial fits.
    """

    resources: Resources
    trials: tuple[Trial, ...]
    points: tuple[Trial, ...]
    at_once: int
    hours: float


def forecast(study: Study, speeds: Speeds, sizes: Sizes, cpus: float, gpus: float) -> Forecast:
    """Predict a study as its file says.

    Args:
        sizes: of the task.
        cpus, gpus: of the cluster.
    """
    trials = tuple(predict(study, size, speeds, sizes) for size in study.model_sizes)
    points = tuple(
        predict(study, group["model_size"], speeds, sizes, group["agent_overrides"])
        for group in study.groups()
    )
    need_cpus, need_gpus = needs(study.resources, study.evaluation.runners)
    fits = [math.floor(has / need) for has, need in ((cpus, need_cpus), (gpus, need_gpus)) if need]
    limits = [*fits, study.trials(), study.resources.max_concurrent_trials or study.trials()]
    at_once = min(limits)
    # The longest first, each where a place is free; what Tune does is no better.
    per_point = study.trials() // len(points)
    places = [0.0] * at_once
    for trial in sorted(points, key=lambda t: -t.hours):
        for _ in range(per_point):
            if places:
                heapq.heapreplace(places, places[0] + trial.hours)
    return Forecast(study.resources, trials, points, at_once, max(places, default=math.inf))


def best(study: Study, speeds: Speeds, sizes: Sizes, cpus: float, gpus: float) -> Forecast:
    """The same study with the number of env runners under which it ends first; of equals, the fewest."""
    found = forecast(study, speeds, sizes, cpus, gpus)
    most = max(trial.balance for trial in found.trials)
    for runners in range(1, int(min(most, cpus)) + 1):
        resources = study.resources.model_copy(update={"num_env_runners": runners})
        other = forecast(study.model_copy(update={"resources": resources}), speeds, sizes, cpus, gpus)
        if other.hours * _NEAR < found.hours:
            found = other
    return found


def is_asynchronous(resources: Resources) -> bool:
    """Whether sampling and learning go on at once, as in `TDMPC2Config`."""
    return resources.num_env_runners > 0 if resources.asynchronous is None else resources.asynchronous


def needs(resources: Resources, evaluation_runners: int) -> tuple[float, float]:
    """CPUs and GPUs that Ray reserves for one trial."""
    runners = resources.num_env_runners + evaluation_runners
    learners = 0 if resources.gpus_per_learner else resources.num_learners  # RLlib: a GPU, or else a CPU
    cpus = resources.cpus_for_main_process + runners * resources.cpus_per_env_runner + learners
    gpus = max(resources.num_learners, 1) * resources.gpus_per_learner
    return cpus, gpus + runners * resources.gpus_per_env_runner
