"""The random policy as a row of every table of results: the least that learning has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

RANDOM = "random policy"
RUN_IDS = "run_ids"  # the column of every table of a report with the runs behind a row
_COUNTS = ("seeds", "unfinished", "runs", "trials", "finished", "stopped_early", "env_steps")


def with_random(
    table: pd.DataFrame, known: Sequence[Mapping[str, Any]], name: str = RANDOM, *, first: bool = False
) -> pd.DataFrame:
    """A table with rows of the random policy, of each task below the others.

    Args:
        table: results by `model_size` (single runs by `name`), tasks in the order of their names.
        known: the cells of its rows that say something: its result, and where there are several, the task.
        name: what it is called.
        first: its rows stand above the others.
    """
    nothing: dict[Any, Any] = {
        column: float("nan") if pd.api.types.is_numeric_dtype(table[column]) else "" for column in table
    }
    nothing |= {column: 0 for column in _COUNTS if pd.api.types.is_numeric_dtype(table.get(column))}
    nothing["name" if "name" in table else "model_size"] = name
    if RUN_IDS in table:
        nothing[RUN_IDS] = ()
    rows, random = table.to_dict("records"), [{**nothing, **cells} for cells in known]
    joined = pd.DataFrame([*random, *rows] if first else [*rows, *random], columns=table.columns)
    return joined.sort_values("task", kind="stable", ignore_index=True) if "task" in table else joined
