"""What a study would do, without doing it: trials, what each gets and costs, and whether there is room."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tdmpc_ray.core.replay.size import gigabytes
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.points import RESOURCES
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.plan.labels import label_point, steps
from tdmpc_ray.studies.plan.sizing import Forecast, forecast
from tdmpc_ray.studies.plan.speeds import measure_speeds
from tdmpc_ray.studies.run.checks import prepare
from tdmpc_ray.studies.run.cluster import capacity, sharing
from tdmpc_ray.studies.run.room import Bundles, Capacity, misfit, most_of_each, said, summed, turns
from tdmpc_ray.studies.tracking.client import check_tracking
from tdmpc_ray.studies.tracking.naming import trial_label
from tdmpc_ray.studies.words import count

_MOST_TRIALS = 20  # that are listed


class Survey(NamedTuple):
    """What a study would be, not started.

    Attributes:
        forecast: how long it would take.
        requests: of all trials.
        largest: the request of the largest.
        room: what there is.
        notes: what a user might not expect.
    """

    forecast: Forecast
    requests: Sequence[Bundles]
    largest: Bundles
    room: Capacity
    notes: list[str]


def survey(study: Study) -> Survey:
    """Find out what `tune` would start, how long it would take, and where it would not fit.

    Raises:
        UserError: no cluster at RAY_ADDRESS, or something in the study can never work.
    """
    requests = prepare(study).requests
    tracking, waits = study.tracking, ""
    try:
        check_tracking(tracking.uri, tracking.experiment, create=False)
    except UserError as error:
        if tracking.required:
            raise
        waits = f"{error}; until then, metrics will wait in the study's folder"
    need = most_of_each(requests)
    room = capacity(need)
    memory = need.get("memory", 0)
    most = int(room.total("memory") // memory) if memory else None
    found = forecast(study, measure_speeds(study), room.total("CPU"), room.total("GPU"), most)
    shared = "" if os.environ.get("RAY_ADDRESS") else sharing(need)
    notes = [*study.notes(), turns(study, requests, room), shared, waits]
    return Survey(found, requests, max(requests, key=_size), room, [*filter(None, notes)])


def dry_run(study: Study, console: Console) -> None:
    """Print what `tune` would start, how long it would take, and where it would not fit.

    Raises:
        UserError: see `survey`.
    """
    found, requests, largest, room, notes = survey(study)

    def say(line: str) -> None:
        console.print(Text(line), soft_wrap=True)

    say(f"{study.name}: {count(study.trials(), 'trial')} of {steps(study)} agent steps on {study.what}")
    labels = trial_labels(study)
    for label in islice(labels, _MOST_TRIALS):
        say(f"  {label}")
    if (rest := sum(1 for _ in labels)) > 0:
        say(f"  and {rest:,} more")
    for note in notes:
        say(f"note: {note}")
    each = "each trial" if not any(key.startswith(RESOURCES) for key in study.space) else "the largest trial"
    say(f"{each}: {said(summed(largest))}, in {count(len(largest), 'part')}")
    say(f"its replay takes {gigabytes(most_of_each(requests).get('memory', 0))} of memory when it is full")
    console.print(_costs(found, study))
    say(verdict(found, requests, room, study.trials()))


def trial_labels(study: Study) -> Iterator[str]:
    """A line for each trial; what is drawn later is shown as where it is drawn from."""
    drawn = {}
    for key in study.draws():
        [(kind, values)] = study.space[key].model_dump(exclude_none=True).items()
        drawn[key] = f"{kind}{list(values)}"
    for point in study.points():
        for seed in study.seeds:
            for _ in range(study.num_samples):
                yield trial_label({**label_point(study, point, seed=seed), **drawn})


def _size(bundles: Bundles) -> tuple[float, float]:
    whole = summed(bundles)
    return sum(whole.values()) - whole.get("memory", 0), whole.get("memory", 0)


def _costs(found: Forecast, study: Study) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for head in ("size", "trials", "parameters", "steps/s", "each takes", "FLOPs to learn", "to plan"):
        table.add_column(head, justify="right")
    for size in study.model_sizes:
        points = [trial for trial in found.trials if trial.point.model_size == size]
        table.add_row(
            size,
            str(study.trials() // len(study.model_sizes)),
            f"{points[0].num_params / 1e6:.2f} M",
            _range([point.rate for point in points], "{:,.1f}".format),
            _range([point.hours for point in points], _duration),
            _range([point.train_flops for point in points], "{:.2g}".format),
            _range([point.act_flops for point in points], "{:.2g}".format),
        )
    return table


def verdict(found: Forecast, requests: Sequence[Bundles], room: Capacity, trials: int) -> str:
    """Whether it fits, and how long it takes."""
    if reason := misfit(requests, room):
        return f"does not fit: {reason}"
    return (
        f"on {room.where}, {found.at_once} of {count(trials, 'trial')} run at once: about "
        f"{_duration(found.hours)}, by speeds measured here (docs/scaling.md)"
    )


def _range(values: Sequence[float], shown: Callable[[float], str]) -> str:
    low, high = shown(min(values)), shown(max(values))
    return low if low == high else f"{low} to {high}"


def _duration(hours: float) -> str:
    if hours < 1:
        return count(max(round(60 * hours), 1), "minute")
    return f"{hours:,.1f} hours" if hours < 48 else f"{hours / 24:,.1f} days"
