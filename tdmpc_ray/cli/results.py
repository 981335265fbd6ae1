"""Commands about what was trained."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tdmpc_ray.cli.cluster import ThereOption
from tdmpc_ray.cli.common import (
    JsonOption,
    make_console,
    parse_settings,
    print_json,
    print_table,
    progress_bar,
)
from tdmpc_ray.errors import UserError

if TYPE_CHECKING:
    from tdmpc_ray.studies.file.tracked import Named

_WhatArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="EXPERIMENT|DIR...", help="An experiment in MLflow by its name, or result folders."
    ),
]
_StudyOption = Annotated[
    list[str] | None,
    typer.Option(help="Of the experiment, by name or run id; repeatable. Default: the newest."),
]
_AddressOption = Annotated[
    str | None,
    typer.Option(
        help="Address of MLflow. Default: the folders' own; of an experiment, MLFLOW_TRACKING_URI or "
        "sqlite:///mlflow.db."
    ),
]
_MetricOption = Annotated[
    str | None, typer.Option(help="Such as eval/return. Default: what the tasks are judged by.")
]


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint, or the folder of a run: its newest one.")],
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to play.")] = 10,
    task: Annotated[str | None, typer.Option(help="Which one, of an agent that knows several.")] = None,
    seed: Annotated[int, typer.Option(help="Of the environment.")] = 0,
    video: Annotated[Path | None, typer.Option(help="Film the first episode into this .mp4.")] = None,
    grid: Annotated[Path | None, typer.Option(help="Draw frames of that episode into this .png.")] = None,
    record: Annotated[
        Path | None, typer.Option(help="Write the episodes into this folder, as demonstrations.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the planner; repeatable."),
    ] = None,
    env: Annotated[
        str | None,
        typer.Option(metavar="MODULE:CLASS", help="An environment of yours, instead of the run's."),
    ] = None,
) -> None:
    """Play episodes with a trained agent.

    It plans as in training, without exploration noise; --set planner.method=policy acts without planning.
    An environment of yours is built again from the checkpoint, where its module is installed or lies in the
    folder that this is called from; --env names another one.

    Example: tdmpc-ray evaluate results/my-run --episodes 3 --video walk.mp4
    """
    from tdmpc_ray.studies.run.cluster import quiet

    quiet()
    from tdmpc_ray.core.nn.threads import limit_threads
    from tdmpc_ray.rllib.checkpoints.at_hand import at_hand
    from tdmpc_ray.rllib.checkpoints.load import networks_of_newest
    from tdmpc_ray.rllib.evaluation.of_checkpoints import evaluate_checkpoint
    from tdmpc_ray.studies.file.files import STUDY_FILE
    from tdmpc_ray.studies.file.python_path import use_folder_again, use_working_folder
    from tdmpc_ray.studies.models.best_checkpoint import study_folder

    limit_threads(1)
    use_working_folder()
    settings = parse_settings(set_ or [])
    with at_hand(checkpoint, networks_of_newest, STUDY_FILE) as local, progress_bar("playing") as advance:
        if (out := study_folder(local)) is not None:
            use_folder_again(out)
        played = evaluate_checkpoint(
            local, episodes, seed, video, grid, advance, settings, task, record, env=env
        )
    returns, lengths = played["returns"], played["lengths"]
    success = played["successes"]
    for number, (value, length, won) in enumerate(zip(returns, lengths, success, strict=True), 1):
        outcome = "" if won is None else f", {'success' if won else 'no success'}"
        print(f"episode {number}: return {value:.1f}, {length} steps{outcome}")
    is_said = any(won is not None for won in success)
    rate = f", success {fmean(bool(won) for won in success):.0%}" if is_said else ""
    print(f"mean return {fmean(returns):.1f} (standard deviation {pstdev(returns):.1f}){rate}")
    for name, file in (("video", video), ("frames", grid), ("episodes", record)):
        if file is not None:
            print(f"{name}: {file}")


def runs(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="DIR...", help="Result folders, or folders of them.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the results on this machine, newest first.

    The return is that of the newest evaluation, of several trials the best one's.

    Example: tdmpc-ray runs results
    """
    from tdmpc_ray.studies.file.record import local_runs

    folders = folders or [Path("results")]
    if absent := [str(folder) for folder in folders if not folder.is_dir()]:
        raise UserError(f"there is no folder {absent[0]}: name the one that holds your results")
    found = local_runs(folders)
    if as_json:
        print_json([run.model_dump() for run in found])
        return
    rows = [("name", "task", "steps", "return", "status", "folder")]
    for run in found:
        steps = "-" if run.env_steps is None or run.steps is None else f"{run.env_steps:,}/{run.steps:,}"
        value = "-" if run.last_return is None else f"{run.last_return:.1f}"
        rows.append((run.name, run.task, steps, value, run.status, run.folder))
    print_table(rows)
    if waiting := [run.folder for run in found if run.waits]:
        print(f"MLflow has not got all of {', '.join(waiting)}: tdmpc-ray sync DIR brings it the rest")


def compare(
    what: _WhatArgument,
    study: _StudyOption = None,
    mlflow_uri: _AddressOption = None,
    out: Annotated[Path | None, typer.Option(help="PNG file, or a folder for it.")] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ALGORITHM",
            help="Draw over published curves: of tdmpc2, tdmpc2-pixels, tdmpc, dreamerv3, sac; repeatable.",
        ),
    ] = None,
    metric: _MetricOption = None,
    charts: Annotated[
        bool, typer.Option("--charts", help="Write charts into MLflow as well, as `tune` does at its end.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the table and figure of studies from MLflow.

    The figure has learning curves, and return over parameters; with --over, learning curves over
    published ones. It reads from MLflow, and writes there only with --charts.

    Example: tdmpc-ray compare tdmpc-ray --study quickstart --over tdmpc2 --out figures

    Two runs: tdmpc-ray compare results/FIRST results/SECOND
    """
    from tdmpc_ray.studies.file.tracked import named_studies, pointing_to_sync
    from tdmpc_ray.studies.results.compare import compare as compare_study

    named = named_studies(what, study, mlflow_uri)
    console = make_console()
    with pointing_to_sync(what):
        if as_json:
            print_json(_compared(named, out, metric, over or [], charts))
            return
        figure = compare_study(*named, out, metric=metric, over=over or (), charts=charts, console=console)
    console.print(f"figure: {figure}", markup=False, highlight=False, soft_wrap=True)


def _compared(
    named: Named, out: Path | None, metric: str | None, over: list[str], charts: bool
) -> dict[str, Any]:
    from tdmpc_ray.cli.forms import CompareForm, PublishedForm, ResultForm
    from tdmpc_ray.studies.results.analysis.results import summary_table
    from tdmpc_ray.studies.results.compare import draw
    from tdmpc_ray.studies.results.published import against_published
    from tdmpc_ray.studies.results.study_runs import load_study_runs
    from tdmpc_ray.studies.results.views import find_view, offer_view

    runs = load_study_runs(*named, metric=metric)
    published = against_published(runs, over).to_dict("records") if over else []
    # What a table has not for a row, such as the random policy's parameters, pandas calls NaN.
    rows = [{k: v for k, v in row.items() if v == v} for row in summary_table(runs).to_dict("records")]
    return CompareForm(
        experiment=runs.experiment,
        study=runs.study,
        run_ids=[*runs.parent_run_ids],
        metric=runs.metric,
        results=[ResultForm(**row) for row in rows],
        published=[PublishedForm(**row) for row in published],
        figure=str(draw(runs, over, out)),
        charts=(offer_view if charts else find_view)(runs, named.uri),
    ).model_dump()


def report(
    what: _WhatArgument,
    study: _StudyOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for it. Default: STUDY_report.")
    ] = None,
    mlflow_uri: _AddressOption = None,
    metric: _MetricOption = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(help="A result that data is counted to, repeatable. Default: some that curves suggest."),
    ] = None,
) -> None:
    """Write a page about studies: curves, laws, costs.

    It has learning curves, scaling laws, what to train next, comparisons, what a search found, and what it
    all cost.

    One HTML file that needs nothing else, with its figures as PNG and SVG and its tables as CSV beside it;
    MLflow gets a copy, in the folder `report` of the study's run.

    Example: tdmpc-ray report tdmpc-ray --study model_scaling --out scaling
    """
    from tdmpc_ray.studies.file.tracked import named_studies, pointing_to_sync
    from tdmpc_ray.studies.results.page import write_report

    named = named_studies(what, study, mlflow_uri)
    with pointing_to_sync(what):
        page = write_report(*named, out, metric=metric, thresholds=threshold or ())
    print(f"report: {page}")
    print("logged to the study's run in MLflow, as its artifact report/")


def sync(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The --out folder of `train` or `tune`.")],
    address: ThereOption = None,
    mlflow_uri: Annotated[str | None, typer.Option(help="Address of MLflow. Default: the study's.")] = None,
) -> int:
    """Bring MLflow what it could not get while a study ran.

    What it refused then is tried again.

    Doing it twice changes nothing. Where MLflow refuses something still, the exit status is 1. With
    --address, the cluster does it, with what went along when the study was submitted.

    Example: tdmpc-ray sync results/my-study
    """
    from tdmpc_ray.studies.run.cluster import quiet

    if address is not None:
        from tdmpc_ray.cli.cluster import again_there

        return again_there(folder, address, wait=True, command="sync", mlflow_uri=mlflow_uri)
    quiet()
    from tdmpc_ray.studies.run.sync import sync_study

    done = sync_study(folder, mlflow_uri)
    if done.delivered or not done.refused:
        print(f"delivered: {done.delivered:,} entries" if done.delivered else "MLflow has everything")
    if done.refused:
        print(
            f"refused: {done.refused:,} entries ({done.reason}), kept in {done.file} for another `sync`",
            file=sys.stderr,
        )
    return 1 if done.refused else 0
