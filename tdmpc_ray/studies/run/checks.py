"""What of a study is known before Ray starts: whether it can work, and what its trials are made of."""

from __future__ import annotations

from typing import Any, NamedTuple

from ray import tune
from ray.tune.schedulers import TrialScheduler

from tdmpc_ray.envs import TaskInfo, task_info
from tdmpc_ray.envs.gym import require_frames
from tdmpc_ray.envs.listing import require_task
from tdmpc_ray.envs.registered import find
from tdmpc_ray.errors import unknown
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.plan.trials import Plan, plan_study
from tdmpc_ray.studies.run.cluster import quiet
from tdmpc_ray.studies.run.loggers import check_loggers
from tdmpc_ray.studies.run.scheduling import make_scheduler
from tdmpc_ray.studies.run.searching import make_search

_JUDGED_BY_RETURN = ("dmcontrol",)  # suites whose tasks never say whether they succeeded


class Prepared(NamedTuple):
    """A study that can work: its plan, and Tune's parts that run it."""

    plan: Plan
    search: Any
    scheduler: TrialScheduler


def prepare(study: Study, trainable: type[tune.Trainable] | None = None) -> Prepared:
    """Check a study; nothing is started or written.

    Args:
        study: to check.
        trainable: instead of the algorithm.

    Raises:
        UserError: something in it can never work.
    """
    quiet()
    for task in study.task_names:
        require_task(task)
        if study.evaluation.videos and (own := find(task)) is not None:
            require_frames(task, own.make)
    plan = plan_study(study, trainable)
    quiet()  # again: at its import, RLlib says how much it tells
    _check_metric(study)
    check_loggers(study.tracking.also)
    return Prepared(plan, make_search(plan), make_scheduler(study))


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
