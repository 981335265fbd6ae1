"""What a study found: a table and a figure, read from MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tdmpc_ray.studies.figures import scaling_figure
from tdmpc_ray.studies.scaling import bootstrap_interval
from tdmpc_ray.studies.study_runs import StudyRuns, load_study_runs, sort_sizes

__all__ = [
    "StudyRuns",
    "compare",
    "load_study_runs",
    "render_table",
    "scaling_figure",
    "scaling_points",
    "summary_table",
]

RANDOM = "random"


def summary_table(runs: StudyRuns) -> pd.DataFrame:
    """Summarise a study, one row per task and model size, and one per task for the random policy if known.

    Returns:
        Columns task, model_size, params, seeds, final (mean over seeds of the last evaluation), low, high
        (its 95% bootstrap interval, NaN for one seed), best (of any evaluation), env_steps (mean per trial),
        hours (sum over trials), steps_per_s (mean).
    """
    rows: list[dict[str, Any]] = []
    for task in runs.tasks:
        trials = runs.trials[(runs.trials["task"] == task) & runs.trials["final"].notna()]
        for size in sort_sizes(trials):
            group = trials[trials["model_size"] == size]
            finals = group["final"].to_numpy(dtype=float)
            low, high = bootstrap_interval([finals])
            rows.append(
                {
                    "task": task,
                    "model_size": size,
                    "params": group["params"].max(),
                    "seeds": len(group),
                    "final": finals.mean(),
                    "low": low,
                    "high": high,
                    "best": group["best"].max(),
                    "env_steps": group["env_steps"].mean(),
                    "hours": group["hours"].sum(),
                    "steps_per_s": group["steps_per_s"].mean(),
                }
            )
        if task in runs.random_returns:
            rows.append({"task": task, "model_size": RANDOM, "final": runs.random_returns[task], "seeds": 0})
    return pd.DataFrame(rows)


def scaling_points(runs: StudyRuns) -> list[tuple[int, float]]:
    """Pairs (parameters, mean final return) per model size, for the scaling curve on the study's run."""
    table = summary_table(runs)
    known = table[table["params"].notna()]
    means = known.groupby("params")["final"].mean()  # over tasks, where the study has several
    return [(int(params), float(final)) for params, final in means.items()]


def render_table(runs: StudyRuns) -> Table:
    """The summary for a terminal."""
    name = "success" if runs.metric.endswith("success") else "return"
    table = Table(  # its width has to stay below 80
        title=f"{runs.study} ({', '.join(runs.tasks)}), final evaluation {name}",
        padding=(0, 0, 0, 1),
        title_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    several = len(runs.tasks) > 1
    if several:
        table.add_column("task")
    table.add_column("model size", no_wrap=True)
    for header in (
        "params",
        "seeds",
        name,
        "95% CI",
        "env steps",
        "hours",
        "steps/s",
    ):
        table.add_column(header, justify="right", no_wrap=True)
    digits = 2 if name == "success" else 1
    for row in summary_table(runs).to_dict("records"):
        cells = [str(row["task"])] if several else []
        if row["model_size"] == RANDOM:
            cells += ["random policy", "", "", f"{row['final']:.{digits}f}", "", "", "", ""]
            table.add_row(*cells, style="dim")
            continue
        interval = (
            f"{row['low']:.{digits}f} to {row['high']:.{digits}f}" if np.isfinite(row["low"]) else "n=1"
        )
        params = f"{row['params'] / 1e6:.2f} M" if np.isfinite(row["params"]) else "?"
        cells += [str(row["model_size"]), params, str(row["seeds"]), f"{row['final']:.{digits}f}", interval]
        cells += [f"{row['env_steps']:,.0f}", f"{row['hours']:.2f}"]
        table.add_row(*cells, f"{row['steps_per_s']:.1f}")
    return table


def compare(
    experiment: str,
    uri: str,
    study: str | None = None,
    out: Path | None = None,
    *,
    metric: str = "eval/return",
    console: Console | None = None,
) -> Path:
    """Print a study's table and write its figure.

    Args:
        experiment: name of the MLflow experiment.
        uri: address of MLflow.
        study: name or run id of the study; None: the newest one.
        out: the PNG file, or a folder for it; None: `<study>_scaling.png` in the working folder.
        metric: the metric to compare, such as `eval/return` or `eval/success`.
        console: where to print; None: standard output.

    Returns:
        The figure's file.

    Raises:
        UserError: MLflow does not answer, or has no such experiment, study or metric.
    """
    runs = load_study_runs(experiment, uri, study, metric=metric)
    (console or Console()).print(render_table(runs))
    safe = "".join(char if char.isalnum() or char in "-_." else "_" for char in runs.study)
    path = Path(f"{safe}_scaling.png") if out is None else Path(out)
    if path.is_dir() or path.suffix == "":
        path = path / f"{safe}_scaling.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    scaling_figure(runs).savefig(path, dpi=160)
    return path
