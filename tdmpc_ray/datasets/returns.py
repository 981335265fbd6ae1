"""What the episodes of a dataset earned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdmpc_ray.datasets.dataset import Dataset
from tdmpc_ray.errors import UserError

_COLUMNS = 4  # of panels
_BINS = 30


def of_each_task(dataset: Dataset, column: str) -> Iterator[NDArray[np.float64]]:
    """A column of the episodes of each task, in the tasks' order."""
    for task in range(len(dataset.manifest.tasks)):
        parts = [part for part in dataset.manifest.parts if part.task == task]
        values = [dataset.columns(part)[column].astype(np.float64) for part in parts]
        yield np.concatenate(values) if values else np.empty(0)


def task_statistics(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Of each task: name, sizes, numbers of episodes and steps, returns, and the share with success."""
    columns = (of_each_task(dataset, name) for name in ("return", "length", "success"))
    for task, returns, lengths, success in zip(dataset.manifest.tasks, *columns, strict=True):
        said = success[success >= 0]
        yield {
            "name": task.name,
            "obs_shape": task.obs_shape,
            "action_size": task.action_dim,
            "episodes": len(returns),
            "steps": int(lengths.sum()),
            "mean_return": float(returns.mean()),
            "least_return": float(returns.min()),
            "most_return": float(returns.max()),
            "success": float(said.mean()) if len(said) else None,
        }


def draw_returns(dataset: Dataset, file: Path) -> None:
    """A histogram of the episodes' returns, a panel per task.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    tasks = dataset.manifest.tasks
    columns = min(len(tasks), _COLUMNS)
    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(tasks) :]:
        panel.set_visible(False)
    for panel, task, returns in zip(panels, tasks, of_each_task(dataset, "return"), strict=False):
        panel.hist(returns, bins=_BINS, color="#31688e")
        panel.set_title(task.name, fontsize=10, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("return of an episode", fontsize=9)
    figure.supylabel("episodes", fontsize=9)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=160)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {file}: {error}") from None
