"""What processes of this machine are and use, for benchmarks."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def family(pid: int) -> list[Path]:
    """The process and all that descend from it, as folders of /proc."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [pid]
    for member in found:  # grows while it is walked
        found += [child for child, parent in parents.items() if parent == member]
    return [Path(f"/proc/{member}") for member in found]


def cpu_s(folders: Iterable[Path]) -> np.ndarray:
    """Of each, user and system."""
    ticks = [(folder / "stat").read_text().rpartition(")")[2].split()[11:13] for folder in folders]
    return np.array(ticks, float).sum(1) / os.sysconf("SC_CLK_TCK")


def memory_gib(folders: Iterable[Path]) -> float:
    """Of all together; a page that several share counts once."""
    total = 0
    for folder in folders:
        try:
            rows = [line.split() for line in (folder / "smaps_rollup").read_text().splitlines()]
        except OSError:  # it has ended
            continue
        total += sum(int(row[1]) for row in rows if row[0] == "Pss:")
    return total / 2**20
