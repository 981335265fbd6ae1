"""What a study would do, without doing it: trials, what each gets and costs, and whether there is room."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.notes import notes as notes_of
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.plan.room import Bundles, Capacity, misfit, most_of_each, turns
from tdmpc_ray.studies.plan.sizing import Forecast, best, forecast
from tdmpc_ray.studies.plan.speeds import Measured, measure_speeds
from tdmpc_ray.studies.plan.trials import Plan, plan_study
from tdmpc_ray.studies.run.checks import prepare
from tdmpc_ray.studies.run.cluster import capacity, core_share, quiet, sharing
from tdmpc_ray.studies.tracking.client import check_tracking
from tdmpc_ray.studies.words import count


class Survey(NamedTuple):
    """What a study would be, not started.

    Attributes:
        plan: its trials.
        forecast: how long they would take.
        better: the same with another number of env runners, where that ends first.
        measured: the speeds that both are computed from.
        room: what there is.
        notes: what a user might not expect.
    """

    plan: Plan
    forecast: Forecast
    better: Forecast | None
    measured: Measured
    room: Capacity
    notes: list[str]


def cluster_of(cpus: float, gpus: float) -> Capacity:
    """A cluster that is not there, as one node.

    Raises:
        UserError: nothing runs on it.
    """
    where = f"a cluster of {cpus:g} CPUs and {gpus:g} GPUs"
    if not 0 < cpus < math.inf or not gpus < math.inf:
        raise UserError(f"{where} runs nothing: give --cpus above 0")
    return Capacity(where, ({"CPU": cpus, "GPU": gpus, "memory": float(sys.maxsize)},))


def survey(study: Study, cluster: Capacity | None, speeds: Mapping[str, float | None]) -> Survey:
    """Find out what `tune` would start, how long it would take, and where it would not fit.

    Args:
        study: not started.
        cluster: to run it on; None: where `tune` would run it, which refuses what that refuses.
        speeds: what is not to be measured, see `measure_speeds`.

    Raises:
        UserError: no cluster at RAY_ADDRESS, or something in the study can never work there.
    """
    quiet()
    share = 1.0
    if cluster is None:
        plan, notes = prepare(study).plan, [_tracking_waits(study)]
        need = most_of_each(plan.requests)
        room = capacity(need)
        if not os.environ.get("RAY_ADDRESS"):
            notes.append(sharing(need))
            share = core_share(need)
    else:
        plan = plan_study(study)
        need, room, notes = most_of_each(plan.requests), cluster, []
    if room.total("GPU") and not need.get("GPU"):
        notes.append("the study asks for no GPU (resources.gpus_per_learner): all would stay idle")
    memory, measured = need.get("memory", 0), measure_speeds(study, **speeds)
    has = (room.total("CPU"), room.total("GPU"), int(room.total("memory") // memory) if memory else None)
    given = {task: (replace(of_task, share=share), shapes) for task, (of_task, shapes) in measured.items()}
    found, other = forecast(study, given, *has), best(study, given, *has)
    better = other if other.runners != found.runners else None
    notes = [*notes_of(study), turns(study, plan.requests, room), *notes]
    return Survey(plan, found, better, measured, room, [*filter(None, notes)])


def _tracking_waits(study: Study) -> str:
    """What becomes of metrics while MLflow does not answer; nothing where it does."""
    tracking = study.tracking
    try:
        check_tracking(tracking.uri, tracking.experiment, create=False)
    except UserError as error:
        if tracking.required:
            raise
        return f"{error}; until then, metrics will wait in the study's folder"
    return ""


def verdict(found: Forecast, requests: Sequence[Bundles], room: Capacity, trials: int) -> str:
    """Whether it fits, and how long it takes."""
    if reason := misfit(requests, room):
        return f"does not fit: {reason}"
    return (
        f"on {room.where}, {found.at_once} of {count(trials, 'trial')} run at once: about "
        f"{duration(found.hours)}, as docs/scaling.md computes it"
    )


def speeds_words(measured: Measured) -> str:
    """What the hardware is taken to do."""
    speeds = [speeds for speeds, _ in measured.values()]
    step_ms = dict.fromkeys(f"{1e3 * of_task.env_s:.2f}" for of_task in speeds)
    return (
        f"an environment step takes {' or '.join(step_ms)} ms, a core does {speeds[0].core_flops / 1e9:.0f} "
        f"GFLOP/s; a GPU is taken to do {speeds[0].gpu_flops / 1e12:g} TFLOP/s with "
        f"{1e3 * speeds[0].gpu_floor_s:g} ms at least"
    )


def duration(hours: float) -> str:
    """`4 minutes`, `3.2 hours`."""
    if hours < 1:
        return count(max(round(60 * hours), 1), "minute")
    return f"{hours:,.1f} hours" if hours < 48 else f"{hours / 24:,.1f} days"
