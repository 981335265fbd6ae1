"""What a study would do, without doing it: trials, what each gets and costs, and whether there is room."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tdmpc_ray.core.replay_size import gigabytes
from tdmpc_ray.studies.file.points import RESOURCES
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.plan.configure import checked_configs
from tdmpc_ray.studies.plan.labels import label_point, steps
from tdmpc_ray.studies.plan.sizing import Forecast, forecast
from tdmpc_ray.studies.plan.speeds import measure_speeds
from tdmpc_ray.studies.run.cluster import Capacity, capacity, quiet
from tdmpc_ray.studies.tracking.naming import trial_label
from tdmpc_ray.studies.words import count

_MOST_TRIALS = 20  # that are listed


def dry_run(study: Study, console: Console) -> None:
    """Print what `tune` would start, how long it would take, and where it would not fit.

    Raises:
        UserError: no cluster at RAY_ADDRESS, or the task cannot be built here.
    """
    console.print(
        Text(f"{study.name}: {count(study.trials(), 'trial')} of {steps(study)} agent steps on {study.what}")
    )
    labels = trial_labels(study)
    for label in islice(labels, _MOST_TRIALS):
        console.print(Text(f"  {label}"), soft_wrap=True)
    if (rest := sum(1 for _ in labels)) > 0:
        console.print(f"  and {rest:,} more")
    for note in study.notes():
        console.print(Text(f"note: {note}"), soft_wrap=True)
    bundles = trial_bundles(study)
    total = {name: sum(bundle.get(name, 0) for bundle in bundles) for name in ("CPU", "GPU")}
    each = "each trial" if not any(key.startswith(RESOURCES) for key in study.space) else "the largest trial"
    console.print(f"{each}: {_amounts(total)}, in {count(len(bundles), 'part')}")
    memory = sum(map(_memory, bundles))
    console.print(f"its replay takes {gigabytes(memory)} of memory when it is full")
    room = capacity()
    most = int(room.total("memory") // memory) if memory else None
    found = forecast(study, measure_speeds(study), room.total("CPU"), room.total("GPU"), most)
    console.print(_costs(found, study))
    console.print(Text(verdict(found, bundles, room, study.trials())), soft_wrap=True)


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


def trial_bundles(study: Study) -> list[Mapping[str, float]]:
    """What Ray reserves for the largest trial; each bundle has to fit on one node."""
    from tdmpc_ray.rllib import TDMPC2

    quiet()  # again: at its import, RLlib says how much it tells
    configs = checked_configs(study)
    requests = [list(TDMPC2.default_resource_request(config.to_dict()).bundles) for config in configs]
    return max(requests, key=lambda bundles: (sum(map(_places, bundles)), sum(map(_memory, bundles))))


def _places(bundle: Mapping[str, float]) -> float:
    return sum(bundle.values()) - _memory(bundle)


def _memory(bundle: Mapping[str, float]) -> float:
    return bundle.get("memory", 0)


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


def verdict(found: Forecast, bundles: Sequence[Mapping[str, float]], room: Capacity, trials: int) -> str:
    """Whether it fits, and how long it takes."""
    for bundle in bundles:
        places = [node for node in room.nodes if _has(node, {**bundle, "memory": 0})]
        if not places:
            return (
                f"does not fit: {_amounts(bundle)} have to be on one node, and none of {room.where} has them"
            )
        if not any(_has(node, {"memory": _memory(bundle)}) for node in places):
            return (
                f"does not fit: the replay takes {gigabytes(_memory(bundle))} of memory on one node, and "
                f"none of {room.where} has them: lower data.capacity, or train fewer steps"
            )
    if not found.at_once:
        return f"does not fit: {room.where} has {_amounts({n: room.total(n) for n in ('CPU', 'GPU')})}"
    return (
        f"on {room.where}, {found.at_once} of {count(trials, 'trial')} run at once: about "
        f"{_duration(found.hours)}, by speeds measured here (docs/scaling.md)"
    )


def _has(node: Mapping[str, float], amounts: Mapping[str, float]) -> bool:
    return all(node.get(name, 0) >= amount for name, amount in amounts.items())


def _range(values: Sequence[float], shown: Callable[[float], str]) -> str:
    low, high = shown(min(values)), shown(max(values))
    return low if low == high else f"{low} to {high}"


def _duration(hours: float) -> str:
    if hours < 1:
        return count(max(round(60 * hours), 1), "minute")
    return f"{hours:,.1f} hours" if hours < 48 else f"{hours / 24:,.1f} days"


def _amounts(resources: Mapping[str, float]) -> str:
    counted = {name: amount for name, amount in resources.items() if amount and name != "memory"}
    said = [f"{amount:g} {name}{'s' * (amount != 1)}" for name, amount in counted.items()]
    return " and ".join(said) or "nothing"
