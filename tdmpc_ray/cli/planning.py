"""Commands about what has not been started."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tdmpc_ray.cli.common import JsonOption, make_console, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from tdmpc_ray.cli.forms import ForecastForm, PlanForm, TrialPlanForm
    from tdmpc_ray.studies.file.spec import Study
    from tdmpc_ray.studies.plan.room import Capacity
    from tdmpc_ray.studies.plan.sizing import Forecast
    from tdmpc_ray.studies.run.dry_run import Survey

_MOST_POINTS = 20  # that are listed


def plan_cluster(
    file: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study.")],
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of the cluster.")],
    cpus: Annotated[float, typer.Option(min=0, help="CPU cores of the cluster.")],
    env_ms: Annotated[
        float | None, typer.Option(min=0, help="Milliseconds of an environment step. Default: measured here.")
    ] = None,
    core_gflops: Annotated[
        float | None, typer.Option(min=0.1, help="GFLOP/s of a core. Default: measured here, by planning.")
    ] = None,
    gpu_tflops: Annotated[float | None, typer.Option(min=0.1, help="TFLOP/s that a GPU reaches.")] = None,
    gpu_floor_ms: Annotated[
        float | None, typer.Option(min=0, help="Least milliseconds of an update or a plan on a GPU.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a study would start, and how long it takes.

    And with how many env runners it would end first: what `tune --dry-run` says, for a cluster that need
    not be there. docs/scaling.md tells what the estimate is made of.

    Example: tdmpc-ray plan-cluster experiments/model_scaling.yaml --gpus 8 --cpus 128
    """
    from tdmpc_ray.studies.run.cluster import quiet

    quiet()
    from tdmpc_ray.studies.file.load import load_study
    from tdmpc_ray.studies.file.python_path import use_folder_of
    from tdmpc_ray.studies.run.dry_run import cluster_of

    cluster = cluster_of(cpus, gpus)
    use_folder_of(file)
    speeds = {"env_ms": env_ms, "core_gflops": core_gflops}
    speeds |= {"gpu_tflops": gpu_tflops, "gpu_floor_ms": gpu_floor_ms}
    print_plan(load_study(file), as_json, cluster, speeds)


def print_plan(
    study: Study,
    as_json: bool,
    cluster: Capacity | None = None,
    speeds: Mapping[str, float | None] | None = None,
) -> None:
    """Print what `tune` would start, and how long it would take; see `survey`."""
    from rich.text import Text

    from tdmpc_ray.core.replay.size import gigabytes
    from tdmpc_ray.studies.file.points import RESOURCES
    from tdmpc_ray.studies.plan.labels import steps
    from tdmpc_ray.studies.plan.room import said
    from tdmpc_ray.studies.run.dry_run import duration, survey, verdict
    from tdmpc_ray.studies.words import count

    found = survey(study, cluster, speeds or {})
    plan = _form(study, found)
    if as_json:
        print_json(plan.model_dump())
        return
    console = make_console()

    def say(line: str) -> None:
        console.print(Text(line), soft_wrap=True)

    say(f"{plan.study}: {count(plan.trials, 'trial')} of {steps(study)} on {study.what}")
    for note in plan.notes:
        say(f"note: {note}")
    each = "each trial" if not any(key.startswith(RESOURCES) for key in study.space) else "the largest trial"
    say(f"{each}: {said(plan.request)}, in {count(max(map(len, found.plan.requests)), 'part')}")
    if memory := plan.request.get("memory"):
        say(f"its replay takes {gigabytes(memory)} of memory when it is full")
    say(plan.speeds)
    console.print(_table(plan.as_written.points))
    say(verdict(found.forecast, found.plan.requests, found.room, plan.trials))
    if found.better is not None:
        say(f"with resources.num_env_runners: {found.better.runners}, about {duration(found.better.hours)}")


def _form(study: Study, found: Survey) -> PlanForm:
    from tdmpc_ray.cli.forms import PlanForm
    from tdmpc_ray.studies.plan.room import misfit, most_of_each
    from tdmpc_ray.studies.run.dry_run import speeds_words

    return PlanForm(
        study=study.name,
        tasks=study.task_names,
        trials=len(found.plan.trials),
        steps=study.most_steps,
        labels=[trial.label for trial in found.plan.trials],
        notes=found.notes,
        request=most_of_each(found.plan.requests),
        where=found.room.where,
        obstacle=misfit(found.plan.requests, found.room) or None,
        speeds=speeds_words(found.measured),
        as_written=_forecast(study, found.forecast),
        better=None if found.better is None else _forecast(study, found.better),
    )


def _forecast(study: Study, found: Forecast) -> ForecastForm:
    from tdmpc_ray.cli.forms import ForecastForm, TrialPlanForm
    from tdmpc_ray.studies.plan.trials import point_label

    points = [
        TrialPlanForm(
            label=point_label(study, trial.point),
            trials=study.trials() // len(found.trials),
            params=trial.num_params,
            num_env_runners=trial.resources.num_env_runners,
            steps=trial.point.steps,
            plan_ms=1e3 * trial.plan_s,
            update_ms=1e3 * trial.update_s,
            sampling_per_s=trial.sampling,
            learning_per_s=trial.learning,
            steps_per_s=trial.rate,
            balance=trial.balance,
            hours=trial.hours,
            train_flops=trial.train_flops,
            act_flops=trial.act_flops,
        )
        for trial in found.trials
    ]
    return ForecastForm(at_once=found.at_once, hours=found.hours, points=points)


_COLUMNS: dict[str, Callable[[TrialPlanForm], str]] = {
    "trial": lambda point: point.label,
    "trials": lambda point: f"{point.trials}",
    "params": lambda point: f"{point.params / 1e6:.2f} M",
    "plan ms": lambda point: f"{point.plan_ms:.1f}",
    "update ms": lambda point: f"{point.update_ms:.1f}",
    "steps/s": lambda point: f"{point.steps_per_s:,.1f}",
    "FLOPs": lambda point: f"{point.train_flops + point.act_flops:.2g}",
    "hours": lambda point: f"{point.hours:,.2f}",
}


def _table(points: Sequence[TrialPlanForm]) -> Table:
    """A row per point, of a terminal's width."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1), header_style="bold")
    for head in _COLUMNS:
        table.add_column(head, justify="left" if head == "trial" else "right", no_wrap=head != "trial")
    for point in points[:_MOST_POINTS]:
        table.add_row(*(cell(point) for cell in _COLUMNS.values()))
    if len(points) > _MOST_POINTS:
        table.caption = f"and {len(points) - _MOST_POINTS:,} more: --json has all of them"
    return table


def schema(
    out: Annotated[Path | None, typer.Option(help="File for it. Default: standard output.")] = None,
) -> None:
    """Print the JSON schema of study files, for editors.

    A first line `# yaml-language-server: $schema=study.schema.json` in a study file has them check it.

    Example: tdmpc-ray schema --out study.schema.json
    """
    import json

    from tdmpc_ray.errors import UserError
    from tdmpc_ray.studies.file.schema import study_schema

    text = json.dumps(study_schema(), indent=1) + "\n"
    if out is None:
        print(text, end="")
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
