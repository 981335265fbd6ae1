"""Names that MLflow accepts, for metrics, parameters and runs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

MAX_NAME = 250  # characters of a metric, parameter or tag name
MAX_PARAM = 6000  # characters of a parameter's value
MAX_TAG = 8000  # characters of a tag's value

_FORBIDDEN = re.compile(r"[^\w.\- :/]")


def metric_name(name: str) -> str:
    """Return the name closest to `name` that MLflow accepts: one bad name would reject a whole batch."""
    parts = _FORBIDDEN.sub("_", str(name)[:MAX_NAME]).split("/")
    kept = ["_" if part in (".", "..") else part for part in parts if part]
    joined = "/".join(kept) or "_"
    return "__" + joined[2:] if joined.startswith("..") else joined


def clean_metrics(report: Mapping[str, Any]) -> tuple[dict[str, float], int]:
    """Keep what MLflow can store.

    Args:
        report: metric names to numbers.

    Returns:
        Accepted names to finite floats, and how many values were dropped for not being finite numbers.
    """
    kept: dict[str, float] = {}
    dropped = 0
    for key, raw in report.items():
        try:
            value = float(raw)
        except (TypeError, ValueError, OverflowError):
            dropped += 1
            continue
        if not math.isfinite(value):
            dropped += 1
            continue
        name = base = metric_name(key)
        suffix = 2
        while name in kept:  # `agent[0]` and `agent(0)` both become `agent_0_`
            name = f"{base[: MAX_NAME - 4]}_{suffix}"
            suffix += 1
        kept[name] = value
    return kept, dropped


def clean_params(params: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as strings under accepted names."""
    return {metric_name(key): str(value)[:MAX_PARAM] for key, value in params.items()}


def clean_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Tags as strings under accepted names."""
    return {metric_name(key): str(value)[:MAX_TAG] for key, value in tags.items()}


def trial_label(params: Mapping[str, Any]) -> str:
    """Name a trial by what tells it from its siblings, such as `size=5 seed=0 update.lr=0.001`."""
    words = []
    for name, value in params.items():
        key = "size" if name == "model_size" else name.removeprefix("resources.")
        words.append(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}")
    return " ".join(words) or "trial"


def short_task(task: str) -> str:
    """A set's first task and how many there are: `walker-walk+3`."""
    first, *others = task.split("+")
    return f"{first}+{len(others)}" if others else first
