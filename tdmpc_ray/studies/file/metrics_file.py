"""metrics.csv of a study's folder: what trials report, a row per result, for whoever has no MLflow at hand.

Tune's own CSV has the columns of a trial's first result only, which holds no evaluation and no loss, and its
JSON repeats the whole config in every line.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.csv"
TRIAL, STEPS = "trial", "env_steps"
_MOST_ROW = 2**16  # bytes of a row


class MetricsFile:
    """Appends rows; a new metric adds a column to the whole file.

    Args:
        path: of the file, which may hold rows of an earlier process.
        first: names of the columns that every row has, `trial` and `env_steps` among them.
    """

    def __init__(self, path: Path, first: tuple[str, ...]) -> None:
        self._path = path
        self._columns = list(first)
        self._reached: dict[str, int] = {}  # agent steps of each trial's last row
        if path.is_file():
            _cut_torn_row(path)
            for row in self._rows():
                self._columns = [*row]
                self._reached[row[TRIAL]] = int(row[STEPS])
        if not self._reached:
            self._rewrite(lambda _: False)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row.

        A trial that went back to a checkpoint, its own or another trial's, goes over steps again: what was
        there from this step on makes way.
        """
        trial, steps = row[TRIAL], int(row[STEPS])
        new = [name for name in row if name not in self._columns]
        if new:
            self._columns += new
            self._rewrite(lambda _: True)
        if steps < self._reached.get(trial, 0):
            self._rewrite(lambda old: old[TRIAL] != trial or int(old[STEPS]) < steps)
        self._reached[trial] = steps
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _rows(self) -> Iterator[dict[str, str]]:
        with self._path.open(newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)

    def _rewrite(self, keep: Callable[[dict[str, str]], bool]) -> None:
        new = self._path.with_name(f".{self._path.name}.new")
        with new.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            if self._path.is_file():
                writer.writerows(row for row in self._rows() if keep(row))
        os.replace(new, self._path)


def _cut_torn_row(path: Path) -> None:
    """Cut off what a process that was killed has left of its last row."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(size - _MOST_ROW, 0))
        file.truncate(start + file.read().rfind(b"\n") + 1)
