"""Commands about what has not been started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tdmpc_ray.cli.common import JsonOption, make_console, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from tdmpc_ray.cli.forms import ForecastForm
    from tdmpc_ray.studies.file.spec import Study
    from tdmpc_ray.studies.plan.sizing import Forecast


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
    """Estimate how long a study takes on a cluster.

    And with how many env runners it would end first. Nothing is started; docs/scaling.md tells what the
    estimate is made of.

    Example: tdmpc-ray plan-cluster experiments/model_scaling.yaml --gpus 8 --cpus 128
    """
    from tdmpc_ray.errors import UserError
    from tdmpc_ray.studies.run.cluster import quiet

    if not 0 < cpus < float("inf") or not gpus < float("inf"):
        raise UserError(f"a cluster of {cpus:g} CPUs and {gpus:g} GPUs runs nothing: give --cpus above 0")
    quiet()
    from tdmpc_ray.studies.file.load import load_study
    from tdmpc_ray.studies.file.python_path import use_folder_of
    from tdmpc_ray.studies.plan.labels import steps
    from tdmpc_ray.studies.plan.sizing import best, forecast
    from tdmpc_ray.studies.plan.speeds import measure_speeds
    from tdmpc_ray.studies.words import count

    use_folder_of(file)
    study = load_study(file)
    measured = measure_speeds(
        study, env_ms=env_ms, core_gflops=core_gflops, gpu_tflops=gpu_tflops, gpu_floor_ms=gpu_floor_ms
    )
    given = [point.resources for point in study.points()]
    asks = any(resources.gpus_per_learner or resources.gpus_per_env_runner for resources in given)
    idle = "the study asks for no GPU (resources.gpus_per_learner): all would stay idle"
    notes = [idle] if gpus and not asks else []
    as_written = forecast(study, measured, cpus, gpus)
    better = best(study, measured, cpus, gpus)
    if as_json:
        other = _forecast(better, study) if better.runners != as_written.runners else None
        print_json(_plan(study, as_written, better=other, notes=notes))
        return
    speeds, _ = next(iter(measured.values()))
    step_ms = " or ".join(dict.fromkeys(f"{1e3 * task.env_s:.2f}" for task, _ in measured.values()))
    console = make_console()
    console.print(
        f"{study.name}: {count(study.trials(), 'trial')} of {steps(study)} agent steps on {study.what}. "
        f"An environment step takes {step_ms} ms, a core does {speeds.core_flops / 1e9:.0f} "
        f"GFLOP/s; a GPU is taken to do {speeds.gpu_flops / 1e12:g} TFLOP/s with "
        f"{1e3 * speeds.gpu_floor_s:g} ms at least.",
        highlight=False,
    )
    for note in notes:
        console.print(f"note: {note}")
    console.print(_table(as_written, study))
    console.print(f"as the file says, {_verdict(as_written, study.trials(), cpus, gpus)}", highlight=False)
    if better.runners != as_written.runners:
        console.print(_table(better, study))
        console.print(
            f"with resources.num_env_runners: {better.runners}, "
            f"{_verdict(better, study.trials(), cpus, gpus)}",
            highlight=False,
        )


def print_dry_run(study: Study, as_json: bool) -> None:
    """Print what `tune` would start."""
    from tdmpc_ray.studies.run.cluster import quiet

    quiet()
    from tdmpc_ray.studies.run.dry_run import dry_run, survey, trial_labels
    from tdmpc_ray.studies.run.room import misfit, summed

    if not as_json:
        dry_run(study, make_console())
        return
    found = survey(study)
    more = {
        "labels": [*trial_labels(study)],
        "request": summed(found.largest),
        "obstacle": misfit(found.requests, found.room) or None,
        "notes": found.notes,
    }
    print_json(_plan(study, found.forecast, **more))


def _plan(study: Study, as_written: Forecast, **more: Any) -> dict[str, Any]:
    from tdmpc_ray.cli.forms import PlanForm

    return PlanForm(
        study=study.name,
        tasks=study.task_names,
        trials=study.trials(),
        steps=study.most_steps,
        as_written=_forecast(as_written, study),
        **more,
    ).model_dump()


def _forecast(found: Forecast, study: Study) -> ForecastForm:
    from tdmpc_ray.cli.forms import ForecastForm, TrialPlanForm
    from tdmpc_ray.studies.plan.labels import label_point
    from tdmpc_ray.studies.tracking.naming import trial_label

    points = [
        TrialPlanForm(
            label=trial_label(label_point(study, trial.point)),
            params=trial.num_params,
            num_env_runners=trial.resources.num_env_runners,
            steps=trial.steps,
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


def _table(found: Forecast, study: Study) -> Table:
    from rich.table import Table

    from tdmpc_ray.studies.plan.labels import label_point
    from tdmpc_ray.studies.tracking.naming import trial_label

    table = Table()
    heads = (
        "trial",
        "parameters",
        "plan ms",
        "update ms",
        "sampling/s",
        "learning/s",
        "steps/s",
        "balance",
        "hours",
    )
    for head in heads:
        table.add_column(head, justify="right")
    for trial in found.trials:
        table.add_row(
            trial_label(label_point(study, trial.point)),
            f"{trial.num_params / 1e6:.1f}M",
            f"{1e3 * trial.plan_s:.1f}",
            f"{1e3 * trial.update_s:.1f}",
            f"{trial.sampling:,.1f}",
            f"{trial.learning:,.1f}",
            f"{trial.rate:,.1f}",
            str(trial.balance),
            f"{trial.hours:,.1f}",
        )
    return table


def _verdict(found: Forecast, trials: int, cpus: float, gpus: float) -> str:
    from tdmpc_ray.studies.words import count

    if not found.at_once:
        return f"a trial does not fit on {cpus:g} CPUs and {gpus:g} GPUs"
    runners = f"{found.runners} env runner{'' if found.runners == '1' else 's'}"
    return (
        f"{runners} per trial: {found.at_once} of {count(trials, 'trial')} at once, {found.hours:,.1f} hours"
    )


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
