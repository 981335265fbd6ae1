"""What a study varies, in words."""

from __future__ import annotations

import re
import time
from functools import cache
from typing import Any

import pandas as pd

from tdmpc_ray.core.agents import DEFAULT_AGENT, find_settings
from tdmpc_ray.core.config import agent_config
from tdmpc_ray.errors import UserError

_BEGAN = "%Y%m%d-%H%M%S"  # as in the names of result folders
_FIXED = {f"param.{name}" for name in ("model_size", "seed", "task")}
_RESOURCES = "param.resources."
_HARDWARE = (
    "cpus_",
    "gpus_",
    "max_concurrent_trials",
)  # these change how fast a trial is, not what it learns


def varying(trials: pd.DataFrame) -> dict[str, str]:
    """Columns of parameters that vary and are neither size, seed nor task, with their short names.

    What a trial was given to run on counts only among the trials that say it: older ones do not. Processors
    count where a study varies them, not where two studies happen to differ.
    """
    columns = [
        str(name)
        for name in trials
        if str(name).startswith("param.") and name not in _FIXED and _varies(trials, str(name))
    ]
    short = [name.rpartition(".")[2] for name in columns]
    return {
        name: word if short.count(word) == 1 else name.removeprefix("param.")
        for name, word in zip(columns, short, strict=True)
    }


def _varies(trials: pd.DataFrame, name: str) -> bool:
    is_resource = name.startswith(_RESOURCES)
    if is_resource and name.removeprefix(_RESOURCES).startswith(_HARDWARE) and "parent" in trials:
        return bool((trials.groupby("parent")[name].nunique() > 1).any())
    return trials[name].nunique(dropna=is_resource) > 1


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


def with_defaults(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials' parameters, with those that some of them leave to their preset as this has them."""
    if "param.preset" not in trials:
        return trials
    full = trials.copy()
    if "param.algorithm" in trials:  # runs of the first algorithm do not say so
        full["param.algorithm"] = full["param.algorithm"].fillna(DEFAULT_AGENT)
    for name in full:
        key = str(name).removeprefix("param.")
        missing = full[name].isna() & full["param.preset"].notna()
        if not missing.any():
            continue
        for index, size, preset in trials.loc[missing, ["model_size", "param.preset"]].itertuples():
            algorithm = full.get("param.algorithm", {}).get(index, DEFAULT_AGENT)
            full.loc[index, name] = _default(key, size, preset, algorithm)
    return full


@cache
def _default(key: str, size: str, preset: str, algorithm: str) -> str | None:
    section, dot, field = key.partition(".")
    if not dot:  # no setting of the agent
        return None
    try:
        if key in {"model.episodic", *find_settings(algorithm).keys_of_tasks}:
            return None  # the task's to say, not the preset's alone
        values = agent_config(size, preset, {}, algorithm).to_dict()
    except UserError:  # of another version of this package
        return None
    return str(values[section][field]) if field in values.get(section, {}) else None


def told_apart(trials: pd.DataFrame, parents: dict[str, Any]) -> pd.Series:
    """The settings, with the studies' names where trials of two of them have nothing else that differs.

    They would count as seeds of one setting, though their seeds are equal.
    """
    same = trials.groupby(["task", "model_size", "setting", "seed"])["parent"]
    if (same.nunique() <= 1).all():
        return trials["setting"]
    names = {run_id: parent.info.run_name for run_id, parent in parents.items()}
    if len(set(names.values())) < len(names):
        began = {run_id: time.localtime(run.info.start_time / 1000) for run_id, run in parents.items()}
        stamps = {run_id: time.strftime(_BEGAN, at) for run_id, at in began.items()}
        are_unique = len(set(stamps.values())) == len(stamps)
        names = {key: f"{name} {stamps[key] if are_unique else key[:8]}" for key, name in names.items()}
    words = trials["parent"].map(lambda parent: f"run={names[parent]}")
    return words.where(trials["setting"] == "", trials["setting"] + ", " + words)


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
