"""What is done to MLflow runs, as plain records that can wait in a file and be applied again.

An operation is a dict: `op` (its kind), `run` (a key of ours that names the run for ever, because MLflow's
own id exists only once the server has answered) and its values. Applying one twice changes nothing:
MLflow ignores a metric point that it already has, and a run is looked up by its key before it is created.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Op = dict[str, Any]

RUN_KEY = "tdmpc_ray.run_key"  # tag that holds our key
MAX_NAME = 250  # characters of a run's name, which databases hold MLflow to
MAX_POINTS = 1000  # metrics per request of MLflow


def create(
    run: str,
    *,
    name: str,
    time: int,
    tags: dict[str, str],
    params: dict[str, str],
    parent: str | None,
    fresh: bool = False,
) -> Op:
    """Make sure that the run exists, with these parameters; `time` is its start in ms.

    `fresh`: nobody has tried before, so that the process that says so need not search for it, which takes
    MLflow a scan of all tags.
    """
    return {
        "op": "create",
        "run": run,
        "name": name[:MAX_NAME],
        "time": time,
        "tags": tags,
        "params": params,
        "parent": parent,
        "fresh": fresh,
    }


def metrics(run: str, values: dict[str, float], *, step: int, time: int, rising: bool = False) -> Op:
    """Points of several metrics at one step; `time` in ms.

    `rising`: leave out those that are not beyond the metric's last step. A trial that goes on from an older
    checkpoint takes steps again whose points are there.
    """
    points = [[key, value, time, step] for key, value in values.items()]
    return {"op": "metrics", "run": run, "points": points, "rising": rising}


def status(run: str, value: str, *, time: int) -> Op:
    """Set a run's status: RUNNING, or an end (FINISHED, FAILED, KILLED) at `time`, in ms."""
    return {"op": "status", "run": run, "status": value, "time": time}


def tags(run: str, values: dict[str, str]) -> Op:
    """Set tags of a run."""
    return {"op": "tags", "run": run, "tags": values}


def artifact(run: str, path: Path, folder: str = "") -> Op:
    """Upload a file into a folder of the run's artifacts."""
    return {"op": "artifact", "run": run, "path": str(path.absolute()), "folder": folder}


def coalesce(ops: Iterable[Op]) -> list[Op]:
    """Join the metric points of a run into few requests, keeping the order of each run's operations."""
    merged: list[Op] = []
    last: dict[str, Op] = {}  # the newest operation of each run
    for op in ops:
        previous = last.get(op["run"])
        if (
            op["op"] == "metrics"
            and previous is not None
            and previous["op"] == "metrics"
            and previous.get("experiment") == op.get("experiment")
            and previous.get("rising") == op.get("rising")
            and previous.get("late") == op.get("late")
            and len(previous["points"]) + len(op["points"]) <= MAX_POINTS
        ):
            previous["points"].extend(op["points"])
            continue
        if op["op"] == "metrics":
            op = {**op, "points": list(op["points"])}
        last[op["run"]] = op
        merged.append(op)
    return merged


def halves(op: Op) -> list[Op]:
    """Two operations with half the metric points each; none where there is nothing to split."""
    points = op.get("points", [])
    middle = len(points) // 2
    return [{**op, "points": part} for part in (points[:middle], points[middle:])] if middle else []


def entries(op: Op) -> int:
    """How many points an operation has; 1 of any other kind."""
    return len(op.get("points", [None]))


class Spool:
    """Operations in a JSONL file, in order; whole lines count, as a process may be killed while it writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_ours = False  # what stands in the file, this process has written

    def __bool__(self) -> bool:
        return self.path.exists()

    def append(self, ops: Iterable[Op]) -> None:
        """Write all of `ops`, or nothing.

        Raises:
            OSError: the disk does not take them.
        """
        data = "".join(json.dumps(self._with_home(op)) + "\n" for op in ops).encode()
        if not data:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self._is_ours and self._ends_torn():
            data = b"\n" + data
        with self.path.open("ab", buffering=0) as file:
            before, left = file.tell(), memoryview(data)
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:
                file.truncate(before)
                raise
        self._is_ours = True

    def read(self, offset: int = 0, limit: int = 1000) -> tuple[list[Op], int]:
        """Read at most `limit` operations from byte `offset`; returns them and where the next ones start.

        None are read at the end of the file alone.
        """
        ops: list[Op] = []
        if not self.path.exists():
            return ops, offset
        with self.path.open("rb") as file:
            # Shorter than before: `sync` took the file away in between, and it began anew.
            offset = offset if offset <= self.path.stat().st_size else 0
            file.seek(offset)
            while len(ops) < limit and (line := file.readline()).endswith(b"\n"):
                offset += len(line)
                with contextlib.suppress(ValueError):  # torn: a process was killed, or the power went
                    ops.append(self._at_home(json.loads(line)))
            return ops, offset

    def __iter__(self) -> Iterator[Op]:
        ops, offset = self.read()
        while ops:
            yield from ops
            ops, offset = self.read(offset)

    def clear(self) -> None:
        """Take the file away."""
        self.path.unlink(missing_ok=True)

    def _with_home(self, op: Op) -> Op:
        """Files of the study itself are found from its folder, which may be moved meanwhile."""
        home = self.path.absolute().parent.parent
        return {**op, "home": str(home)} if op["op"] == "artifact" else op

    def _at_home(self, op: Op) -> Op:
        if (home := op.pop("home", None)) is not None and Path(op["path"]).is_relative_to(home):
            here = self.path.absolute().parent.parent / Path(op["path"]).relative_to(home)
            op["path"] = str(here) if here.exists() else op["path"]
        return op

    def _ends_torn(self) -> bool:
        if not self.path.exists() or self.path.stat().st_size == 0:
            return False
        with self.path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) != b"\n"
