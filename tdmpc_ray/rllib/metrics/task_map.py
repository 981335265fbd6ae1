"""What a model is told about each of its tasks, on a plane: what is near there is alike to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def task_map(vectors: Tensor, tasks: Sequence[str]) -> dict[str, float]:
    """Metrics of a map of tasks.

    Args:
        vectors: of each task, (tasks, T), two or more.
        tasks: their names.

    Returns:
        `embedding/<task>/x` and `/y`, the two principal components, and `embedding/shown`, the share of the
        vectors' variance that is in these.
    """
    centred = (vectors - vectors.mean(0)).double()
    left, strengths, _ = torch.linalg.svd(centred, full_matrices=False)
    missing = max(2 - len(strengths), 0)
    places = torch.nn.functional.pad(left * strengths, (0, missing))[:, :2]
    places = places * torch.where(places[0] < 0, -1.0, 1.0)  # a component's direction means nothing
    variance = strengths.square()
    shown = float(variance[:2].sum() / variance.sum()) if variance.sum() > 0 else 1.0
    found = {"embedding/shown": shown}
    for task, (x, y) in zip(tasks, places.tolist(), strict=True):
        found |= {f"embedding/{task}/x": x, f"embedding/{task}/y": y}
    return found
