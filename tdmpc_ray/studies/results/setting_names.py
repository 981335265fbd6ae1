"""What a study varies, in words."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

_FIXED = {f"param.{name}" for name in ("model_size", "seed", "task")}


def varying(trials: pd.DataFrame) -> dict[str, str]:
    """Columns of parameters that vary and are neither size, seed nor task, with their short names.

    What a trial was given to run on counts only among the trials that say it: older ones do not.
    """
    columns = [
        str(name)
        for name in trials
        if str(name).startswith("param.")
        and name not in _FIXED
        and trials[name].nunique(dropna=str(name).startswith("param.resources.")) > 1
    ]
    short = [name.rpartition(".")[2] for name in columns]
    return {
        name: word if short.count(word) == 1 else name.removeprefix("param.")
        for name, word in zip(columns, short, strict=True)
    }


def settings(trials: pd.DataFrame) -> pd.Series:
    """Per trial, the values of the parameters that vary, such as `horizon=3, lr=0.001`."""
    words = [
        shown.map(lambda text, label=label: f"{label}={text}" if text else "")
        for name, label in varying(trials).items()
        for shown in (_short_numbers(trials[name]),)
    ]
    return pd.Series(
        [", ".join(filter(None, row)) for row in zip(*words, strict=True)] if words else "",
        index=trials.index,
    )


def natural(text: str) -> list[Any]:
    """Sort key: numbers within text by their value."""
    parts = re.split(r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)", text)
    return [(0, float(part), "") if index % 2 else (1, 0.0, part) for index, part in enumerate(parts)]


def _short_numbers(values: pd.Series) -> pd.Series:
    """As words, empty where missing; numbers with as few digits, four at least, as tell all of them apart."""
    numbers = pd.to_numeric(values, errors="coerce")
    texts = values.astype(str)
    distinct = numbers.nunique()
    for digits in range(4, 18):
        short = numbers.map(lambda number, digits=digits: f"{number:.{digits}g}")
        if short[numbers.notna()].nunique() == distinct:
            break
    return short.where(numbers.notna(), texts).where(values.notna(), "")
