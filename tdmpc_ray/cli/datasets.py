"""The commands about datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tdmpc_ray.cli.common import JsonOption, print_json, print_table, progress_bar
from tdmpc_ray.errors import UserError

if TYPE_CHECKING:
    from tdmpc_ray.cli.forms import DatasetForm

_HEADER = ("task", "episodes", "steps", "return", "least", "most", "success", "obs", "action")
_OutArgument = Annotated[
    Path, typer.Argument(metavar="OUT", help="Folder of the dataset; one that is there grows.")
]
_HalfOption = Annotated[
    bool | None, typer.Option("--half/--single", help="Precision of numbers. Default: single.")
]
_TasksOption = Annotated[str, typer.Option(metavar="A,B", help="Only these tasks.")]


def make(
    out: _OutArgument,
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs or studies.")],
    first: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the first N agent steps of each trial.")
    ] = None,
    tasks: _TasksOption = "",
    half: _HalfOption = None,
) -> None:
    """Make a dataset from the replays of runs and studies.

    Of each trial its newest checkpoint, finished or not. What is added is noted with task, seed and steps.

    Example: tdmpc-ray dataset make data/walkers results/walker-study --first 20000
    """
    from tdmpc_ray.studies.run.cluster import quiet

    quiet()
    from tdmpc_ray.datasets.writer import writing
    from tdmpc_ray.rllib.checkpoints.recorded import episodes_of, newest_of_trials, source_of
    from tdmpc_ray.studies.file.python_path import use_working_folder

    use_working_folder()
    chosen = _split(tasks)
    found = [(checkpoint, run) for run in runs for checkpoint in newest_of_trials(run)]
    with progress_bar("reading replays") as advance, writing(out, half=half) as writer:
        for number, (checkpoint, _) in enumerate(found):
            source = writer.begin(source_of(checkpoint))
            for episode in episodes_of(checkpoint, first):
                if not chosen or episode.task in chosen:
                    writer.add(episode, source, episode.task)
            advance((number + 1) / len(found))
    print(_summary(out))


def import_(
    out: _OutArgument,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", help="Published chunk_N.pt, .npz, .hdf5, folders of them, minari:ID."
        ),
    ],
    tasks: _TasksOption = "",
    share: Annotated[float, typer.Option(help="Of the episodes.")] = 1.0,
    half: _HalfOption = None,
    task_names: Annotated[
        str,
        typer.Option(metavar="A,B", help="What the ids of published files stand for; or of all, one name."),
    ] = "",
    obs_dims: Annotated[str, typer.Option(metavar="N,N", help="Of these tasks.")] = "",
    action_dims: Annotated[str, typer.Option(metavar="N,N", help="Of these tasks.")] = "",
) -> None:
    """Add recorded episodes of others to a dataset.

    The published multi-task files (mt30, mt80), Minari's datasets, robomimic's files, NumPy files. Nothing of
    a file is run, and after an error nothing of it is left in the dataset.

    Example: tdmpc-ray dataset import data/mt30 mt30/chunk_*.pt --half --tasks walker-walk,cheetah-run
    """
    from tdmpc_ray.datasets.importing import Taken, TaskNames, import_file, require_tasks
    from tdmpc_ray.datasets.writer import writing

    given = None
    if task_names:
        names = _split(task_names)
        known = obs_dims or action_dims or len(names) > 1
        options = (("--obs-dims", obs_dims), ("--action-dims", action_dims))
        sizes = [_numbers(*option) if known else [0] for option in options]
        given = TaskNames(names, *sizes)
    chosen = _split(tasks)
    require_tasks(chosen, given)
    with progress_bar("importing") as advance, writing(out, half=half) as writer:
        for number, file in enumerate(files):
            import_file(writer, file, Taken(chosen, share), given)
            advance((number + 1) / len(files))
    print(_summary(out))


def info(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Of a dataset.")],
    histogram: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the episodes' returns into this .png.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is in a dataset: tasks, episodes, steps, returns, sizes.

    Example: tdmpc-ray dataset info data/walkers
    """
    from tdmpc_ray.datasets.dataset import Dataset
    from tdmpc_ray.datasets.returns import draw_returns

    form = _form(folder)
    if histogram is not None:
        draw_returns(Dataset(folder), histogram)
    if as_json:
        print_json(form.model_dump())
        return
    rows: list[tuple[str, ...]] = [_HEADER]
    for task in form.tasks:
        success = "-" if task.success is None else f"{task.success:.0%}"
        returns = (f"{value:.1f}" for value in (task.mean_return, task.least_return, task.most_return))
        counts, shape = (f"{task.episodes:,}", f"{task.steps:,}"), "x".join(map(str, task.obs_shape))
        rows.append((task.name, *counts, *returns, success, shape, str(task.action_size)))
    print_table(rows)
    for source in form.sources:
        print(f"from {source}")
    print(_summary(folder))
    if histogram is not None:
        print(f"histogram: {histogram}")


def _form(folder: Path) -> DatasetForm:
    from tdmpc_ray.cli.forms import DatasetForm, DatasetTaskForm
    from tdmpc_ray.datasets.dataset import Dataset
    from tdmpc_ray.datasets.returns import task_statistics

    dataset = Dataset(folder)
    return DatasetForm(
        folder=str(folder),
        half=dataset.manifest.half,
        bytes=dataset.bytes,
        sources=[source.words for source in dataset.manifest.sources],
        tasks=[DatasetTaskForm(**values) for values in task_statistics(dataset)],
    )


def _summary(folder: Path) -> str:
    from tdmpc_ray.datasets.dataset import Dataset

    dataset = Dataset(folder)
    parts, tasks = dataset.manifest.parts, len(dataset.manifest.tasks)
    episodes, steps = sum(part.episodes for part in parts), sum(part.steps for part in parts)
    precision = "half" if dataset.manifest.half else "single"
    return (
        f"{folder}: {tasks} task{'s' * (tasks > 1)}, {episodes:,} episodes, {steps:,} steps, "
        f"{dataset.bytes / 1e6:,.1f} MB in {precision} precision"
    )


def _split(words: str) -> list[str]:
    return [word.strip() for word in words.split(",") if word.strip()]


def _numbers(option: str, words: str) -> list[int]:
    try:
        return [int(word) for word in _split(words)]
    except ValueError:
        raise UserError(f"{option} {words}: give whole numbers with commas between them") from None
