"""What of a study is known before Ray starts: whether it can work, and what its trials are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray import tune

from tdmpc_ray.envs import TaskInfo, task_info
from tdmpc_ray.envs.listing import require_task
from tdmpc_ray.errors import unknown
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.plan.configure import MakeEnvConfig, trainable_and_fixed, trial_requests
from tdmpc_ray.studies.run.cluster import quiet
from tdmpc_ray.studies.run.loggers import check_loggers
from tdmpc_ray.studies.run.room import Bundles
from tdmpc_ray.studies.run.scheduling import make_scheduler
from tdmpc_ray.studies.run.searching import make_search

_JUDGED_BY_RETURN = ("dmcontrol",)  # suites whose tasks never say whether they succeeded


@dataclass(frozen=True)
class Prepared:
    """A study that can work.

    Attributes:
        trainable: what runs the trials.
        fixed: what is the same in the configs of all trials.
        env_config: a task to what its environments are built from.
        search, scheduler: Tune's.
        requests: bundles that Ray reserves for the trials, see `trial_requests`.
    """

    trainable: type[tune.Trainable]
    fixed: dict[str, Any]
    env_config: MakeEnvConfig
    search: Any
    scheduler: Any
    requests: list[Bundles]


def prepare(study: Study, trainable: type[tune.Trainable] | None = None) -> Prepared:
    """Check a study; nothing is started or written.

    Args:
        study: to check.
        trainable: instead of the algorithm.

    Raises:
        UserError: something in it can never work.
    """
    quiet()
    kind, fixed, env_config = trainable_and_fixed(study, trainable)
    quiet()  # again: at its import, RLlib says how much it tells
    _check_metric(study)
    check_loggers(study.tracking.also)
    search, scheduler = make_search(study, env_config), make_scheduler(study)
    for task in study.task_names:
        require_task(task)
    requests: list[Bundles] = [*trial_requests(study, kind, fixed, env_config)]
    return Prepared(kind, fixed, env_config, search, scheduler, requests)


def _check_metric(study: Study) -> None:
    """Search, scheduler and `stop.score` would wait for ever for a metric that no result has."""
    from tdmpc_ray.rllib.metrics.report import EVALUATION

    for name in study.task_names:
        info, known = task_info(name), []
        for metric in EVALUATION.values():
            members = [member for member in info.tasks or (name,) if _may_have(metric, task_info(member))]
            known += [metric] if members else []
            known += [f"eval/{member}/{metric.removeprefix('eval/')}" for member in members if info.tasks]
        if study.score not in known:
            raise unknown(f"metric of {name}", study.score, known)


def _may_have(metric: str, info: TaskInfo) -> bool:
    return metric != "eval/success" or info.suite not in _JUDGED_BY_RETURN
