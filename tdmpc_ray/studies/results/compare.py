"""What a study found: a table and a figure, read from MLflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.results.analysis.results import summary_table, unlike
from tdmpc_ray.studies.results.figures import scaling_figure
from tdmpc_ray.studies.results.published import against_published, published_figure
from tdmpc_ray.studies.results.random_policy import RANDOM
from tdmpc_ray.studies.results.study_runs import StudyRuns, load_study_runs
from tdmpc_ray.studies.results.views import find_view, offer_view
from tdmpc_ray.studies.tracking.kind import StudyKind

_MAX_ROWS = 60  # of a table in a terminal


def render_table(runs: StudyRuns) -> Table:
    """The report's table of results, for a terminal: its widest column folds where there is no room."""
    summary = summary_table(runs)
    name = metric if (metric := runs.metric.rpartition("/")[2]) in ("success", "score") else "return"
    evaluated = "newest evaluations'" if (summary["unfinished"] > 0).any() else "final evaluation's"
    table = Table(
        title=f"{runs.study} ({', '.join(runs.tasks)}), {evaluated} {name}",
        padding=(0, 0, 0, 1),
        title_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    columns = _columns(runs, name)
    for header in columns:
        words = header in ("task", "model size", "setting")
        table.add_column(header, justify="left" if words else "right", no_wrap=header != "setting")
    shown = summary
    if len(summary) > _MAX_ROWS:
        best = summary.groupby("task")["final"].rank(ascending=False) <= _MAX_ROWS // len(runs.tasks)
        shown = summary[best | (summary["model_size"] == RANDOM)]
    for row in shown.to_dict("records"):
        is_random = row["model_size"] == RANDOM
        said = ("task", "model size", name) if is_random else columns
        cells = [cell(row) if header in said else "" for header, cell in columns.items()]
        table.add_row(*cells, style="dim" if is_random else None)
    notes = [f"{mark} {said}".lstrip() for mark, said in unlike(summary, runs).items()]
    if len(shown) < len(summary):
        notes = [f"the best of {len(summary):,} rows; `tdmpc-ray report` has all of them", *notes]
    if notes:
        table.caption, table.caption_justify = "\n".join(notes), "left"
    return table


def _columns(runs: StudyRuns, name: str) -> dict[str, Callable[[dict[str, Any]], str]]:
    """Heads of the table to what stands below them, of a row of the summary."""
    settings = runs.settings != [""]
    digits = 2 if name == "success" else 1
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "task": lambda row: row["task"],
        "model size": lambda row: row["model_size"],
        "setting": lambda row: row["setting"],
        "params": lambda row: f"{row['params'] / 1e6:.2f} M" if np.isfinite(row["params"]) else "?",
        "seeds": lambda row: f"{row['seeds']}{'*' * bool(row['unfinished'])}{'+' * row['stopped_early']}",
        name: lambda row: f"{row['final']:.{digits}f}",
        "95% CI": lambda row: (
            f"{row['low']:.{digits}f} to {row['high']:.{digits}f}" if np.isfinite(row["low"]) else "n=1"
        ),
        "updates" if StudyKind.OFFLINE in runs.kind else "env steps": lambda row: f"{row['env_steps']:,.0f}",
        "hours": lambda row: f"{row['hours']:.2f}",
    }
    without = ["task"] * (len(runs.tasks) == 1) + ["params" if settings else "setting"]
    return {header: cell for header, cell in columns.items() if header not in without}


def compare(
    experiment: str,
    uri: str,
    study: str | Sequence[str] | None = None,
    out: Path | None = None,
    *,
    metric: str | None = None,
    over: Sequence[str] = (),
    charts: bool = False,
    console: Console | None = None,
) -> Path:
    """Print a study's table, write its figure, and say where MLflow has its charts; reads from MLflow alone.

    Args:
        experiment: name of the MLflow experiment.
        uri: address of MLflow.
        study: name or run id of the study, or of several to be compared; None: the newest one.
        out: the file (.png, .pdf or .svg), or a folder for it; None: `<study>_<kind>.png` here.
        metric: the metric to compare, such as `eval/return`; None: the one that the tasks are judged by.
        over: published algorithms (see `published.ALGORITHMS`) to draw the study's curves over; none: the
            scaling figure.
        charts: write the charts into MLflow as well, as a study does at its end.
        console: where to print; None: standard output.

    Returns:
        The figure's file.

    Raises:
        UserError: MLflow does not answer, or has no such experiment, study or metric; nothing was published.
    """
    console = console or Console()
    runs = load_study_runs(experiment, uri, study, metric=metric)
    console.print(render_table(runs))
    if over:
        for row in against_published(runs, over).to_dict("records"):
            console.print(_against(row), highlight=False, soft_wrap=True)
    path = draw(runs, over, out)
    offer = offer_view if charts else find_view
    console.print(offer(runs, uri), markup=False, highlight=False, soft_wrap=True)
    return path


def draw(runs: StudyRuns, over: Sequence[str] = (), out: Path | None = None) -> Path:
    """Write the figure of studies, see `compare`; returns its file."""
    figure, kind = (published_figure(runs, over), "published") if over else (scaling_figure(runs), "scaling")
    safe = runs.file_name
    path = Path(f"{safe}_{kind}.png") if out is None else Path(out)
    if path.is_dir() or path.suffix not in (".png", ".pdf", ".svg"):
        path = path / f"{safe}_{kind}.png"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=160)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another --out") from None
    return path


def _against(row: dict[str, Any]) -> str:
    who = ", ".join(filter(None, (f"size {row['model_size']}", row["setting"])))
    seeds = f"{row['seeds']} seed{'s' if row['seeds'] > 1 else ''}"
    ours = f"{row['task']} at {row['env_frames']:,} frames: {who} ({seeds}) {row['value']:.4g}"
    if math.isnan(row["published"]):
        return f"{ours}, {row['algorithm']} was published from {row['published_from']:,} frames on"
    ratio = f", {row['value'] / row['published']:.2f} of it" if row["published"] > 0 else ""
    return f"{ours}, {row['algorithm']} as published {row['published']:.4g}{ratio}"
