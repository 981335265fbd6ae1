"""Commands about what has not been started."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tdmpc_ray.cli.common import JsonOption, make_console, print_json
from tdmpc_ray.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from tdmpc_ray.cli.forms import ForecastForm, NeedForm, PlanForm, TrialPlanForm
    from tdmpc_ray.studies.file.spec import Study
    from tdmpc_ray.studies.plan.room import Capacity
    from tdmpc_ray.studies.plan.sizing import Forecast
    from tdmpc_ray.studies.run.dry_run import Survey

_MOST_POINTS = 20  # that are listed


def plan(
    file: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study.")],
    gpus: Annotated[float | None, typer.Option(min=0, help="GPUs of a cluster.")] = None,
    cpus: Annotated[float | None, typer.Option(min=0, help="CPU cores of a cluster. Default: here.")] = None,
    law: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT",
            help="Results of earlier studies, as of `compare`: their law says how many steps trials need.",
        ),
    ] = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(help="A result to reach, with --law; repeatable. Default: some that curves suggest."),
    ] = None,
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

    And with how many env runners it would end first: what `tune --dry-run` says, also for a cluster that
    need not be there. docs/scaling.md tells what the estimate is made of. With --law, also how many steps its
    trials need to reach a result, by what earlier runs took.

    Example: tdmpc-ray plan experiments/model_scaling.yaml --gpus 8 --cpus 128
    """
    from tdmpc_ray.studies.run.cluster import quiet

    quiet()
    from tdmpc_ray.studies.file.load import load_study
    from tdmpc_ray.studies.file.python_path import use_folder_of
    from tdmpc_ray.studies.run.dry_run import cluster_of

    if threshold and not law:
        raise UserError("--threshold goes with --law: name the result folder of an earlier study")
    cluster = None if cpus is None and gpus is None else cluster_of(cpus or 0.0, gpus or 0.0)
    use_folder_of(file)
    speeds = {"env_ms": env_ms, "core_gflops": core_gflops}
    speeds |= {"gpu_tflops": gpu_tflops, "gpu_floor_ms": gpu_floor_ms}
    print_plan(load_study(file), as_json, cluster, speeds, law or (), threshold or ())


def print_plan(
    study: Study,
    as_json: bool,
    cluster: Capacity | None = None,
    speeds: Mapping[str, float | None] | None = None,
    law: Sequence[str] = (),
    thresholds: Sequence[float] = (),
) -> None:
    """Print what `tune` would start, how long it would take, and what a law says of it; see `survey`."""
    from rich.text import Text

    from tdmpc_ray.core.replay.size import gigabytes
    from tdmpc_ray.studies.file.points import RESOURCES
    from tdmpc_ray.studies.plan.labels import steps
    from tdmpc_ray.studies.plan.room import said
    from tdmpc_ray.studies.run.dry_run import duration, survey, verdict
    from tdmpc_ray.studies.words import count

    found = survey(study, cluster, speeds or {})
    plan = _form(study, found)
    if law:
        plan.needs = _needs(study, found.forecast, law, thresholds)
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
    for need in plan.needs:
        say(_need_words(need, duration, "updates" if study.is_offline else "agent steps"))


def _needs(
    study: Study, forecast: Forecast, law: Sequence[str], thresholds: Sequence[float]
) -> list[NeedForm]:
    from tdmpc_ray.cli.forms import NeedForm
    from tdmpc_ray.studies.file.tracked import named_studies, pointing_to_sync
    from tdmpc_ray.studies.run.law_plan import needs

    named = named_studies(law, None, None)
    with pointing_to_sync(law):
        found = needs(study, forecast, named, thresholds)
    return [NeedForm(**vars(need)) for need in found]


def _need_words(need: NeedForm, duration: Callable[[float], str], unit: str) -> str:
    from tdmpc_ray.studies.results.drawing import short

    if need.is_beyond:
        return f"to reach {need.threshold}: {need.label} lies beyond what the law was fitted to"
    low, high = need.interval
    hours_low, hours_high = need.hours_interval
    steps = f"about {short(need.steps)} {unit} ({short(low)} to {short(high)})"
    hours = f"{duration(need.hours)} ({duration(hours_low)} to {duration(hours_high)})"
    return (
        f"to reach {need.threshold} with 95 %: {need.label}, {steps}, {hours}; its own steps suffice for "
        f"{need.share:.0%} of such runs"
    )


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

    from tdmpc_ray.studies.file.schema import study_schema

    text = json.dumps(study_schema(), indent=1) + "\n"
    if out is None:
        print(text, end="")
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
