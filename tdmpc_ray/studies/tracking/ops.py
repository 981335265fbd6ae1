"""What is done to MLflow runs, as plain records that can wait in a file and be applied again.

An operation is a dict: `op` (its kind), `run` (a key of ours that names the run for ever, because MLflow's
own id exists only once the server has answered) and its values. Applying one twice changes nothing:
MLflow ignores a metric point that it already has, and a run is looked up by its key before it is created.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tdmpc_ray.studies.tracking.client import connect, ensure_experiment

Op = dict[str, Any]

RUN_KEY = "tdmpc_ray.run_key"  # tag that holds our key
MAX_POINTS = 1000  # metrics per request of MLflow
MAX_PARAMS = 100  # parameters, or tags, per request

_REJECTIONS = (
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "INVALID_STATE",
)


def create(
    run: str, *, name: str, time: int, tags: dict[str, str], params: dict[str, str], parent: str | None
) -> Op:
    """Make sure that the run exists, with these parameters; `time` is its start in ms."""
    return {
        "op": "create",
        "run": run,
        "name": name,
        "time": time,
        "tags": tags,
        "params": params,
        "parent": parent,
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
            and len(previous["points"]) + len(op["points"]) <= MAX_POINTS
        ):
            previous["points"].extend(op["points"])
            continue
        if op["op"] == "metrics":
            op = {**op, "points": list(op["points"])}
        last[op["run"]] = op
        merged.append(op)
    return merged


class RunMissing(LookupError):
    """MLflow answers, but knows no run of this key."""


def is_rejection(error: BaseException) -> bool:
    """True where MLflow has understood and refused, so that trying again is in vain."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return str(error.error_code) in _REJECTIONS
    return isinstance(error, FileNotFoundError | IsADirectoryError | RunMissing | TypeError)


def halves(op: Op) -> list[Op]:
    """Two operations with half the metric points each; none where there is nothing to split."""
    points = op.get("points", [])
    middle = len(points) // 2
    return [{**op, "points": part} for part in (points[:middle], points[middle:])] if middle else []


class OpSender:
    """Applies operations to an MLflow server or database.

    Args:
        uri: address of MLflow.
        run_ids: run keys to MLflow's ids, as far as known; filled in as runs are found or created.
    """

    def __init__(self, uri: str, run_ids: dict[str, str]) -> None:
        self._uri = uri
        self._client: Any = None
        self._experiments: dict[str, str] = {}
        self._last_steps: dict[str, dict[str, int]] = {}  # of a run's metrics
        self.run_ids = run_ids

    def apply(self, experiment: str, op: Op) -> None:
        """Apply one operation; raises what MLflow raises."""
        if self._client is None:
            self._client = connect(self._uri)
        kind = op["op"]
        if kind == "create":
            self._create(experiment, op)
            return
        run_id = self.find(experiment, op["run"])
        if run_id is None:
            raise RunMissing(f"MLflow has no run for {op['run']}")
        if kind == "metrics":
            self._log_metrics(run_id, op["points"], rising=op.get("rising", False))
        elif kind == "status":
            if op["status"] == "RUNNING":
                self._client.update_run(run_id, status="RUNNING")
            else:
                self._client.set_terminated(run_id, op["status"], end_time=op["time"])
        elif kind == "tags":
            self._log_strings(run_id, tags=op["tags"])
        elif kind == "artifact":
            self._client.log_artifact(run_id, op["path"], op["folder"] or None)
        else:
            raise TypeError(f"unknown operation {kind!r}")

    def answers(self) -> bool:
        """Whether MLflow itself can be reached, whatever has failed before."""
        try:
            self._client.search_experiments(max_results=1)
        except Exception:
            return False
        return True

    def find(self, experiment: str, run: str) -> str | None:
        """MLflow's id of the run with our key, or None."""
        if run not in self.run_ids:
            if self._client is None:
                self._client = connect(self._uri)
            found = self._client.search_runs(
                [self._experiment_id(experiment)], f"tags.`{RUN_KEY}` = '{run}'", max_results=1
            )
            if not found:
                return None
            self.run_ids[run] = found[0].info.run_id
        return self.run_ids[run]

    def _create(self, experiment: str, op: Op) -> None:
        run_id = self.find(experiment, op["run"])
        if run_id is None:
            all_tags = {**op["tags"], RUN_KEY: op["run"]}
            if op["parent"] is not None:
                parent_id = self.find(experiment, op["parent"])
                if parent_id is None:
                    raise RunMissing(f"MLflow has no run for {op['parent']}")
                all_tags["mlflow.parentRunId"] = parent_id
            run = self._client.create_run(
                self._experiment_id(experiment), start_time=op["time"], tags=all_tags, run_name=op["name"]
            )
            run_id = self.run_ids[op["run"]] = run.info.run_id
        self._log_strings(run_id, params=op["params"])

    def _experiment_id(self, name: str) -> str:
        if name not in self._experiments:
            self._experiments[name] = ensure_experiment(self._client, self._uri, name)
        return self._experiments[name]

    def _steps(self, run_id: str) -> dict[str, int]:
        """The last step of each metric that MLflow has."""
        if run_id not in self._last_steps:
            metrics = self._client.get_run(run_id).data._metric_objs
            self._last_steps[run_id] = {metric.key: metric.step for metric in metrics}
        return self._last_steps[run_id]

    def _log_metrics(self, run_id: str, points: Sequence[Sequence[Any]], *, rising: bool) -> None:
        from mlflow.entities import Metric

        last = self._steps(run_id) if rising else {}
        reached = dict(last)
        if rising:
            points = [point for point in points if _rises(point, reached)]
        for chunk in _chunks(points, MAX_POINTS):
            values = [Metric(key, value, time, step) for key, value, time, step in chunk]
            self._client.log_batch(run_id, metrics=values, synchronous=True)
        last.update(reached)  # not before: a batch of which a part has arrived is sent again as a whole

    def _log_strings(
        self, run_id: str, *, params: dict[str, str] | None = None, tags: dict[str, str] | None = None
    ) -> None:
        from mlflow.entities import Param, RunTag

        for chunk in _chunks(list((params or {}).items()), MAX_PARAMS):
            self._client.log_batch(run_id, params=[Param(*item) for item in chunk], synchronous=True)
        for chunk in _chunks(list((tags or {}).items()), MAX_PARAMS):
            self._client.log_batch(run_id, tags=[RunTag(*item) for item in chunk], synchronous=True)


class Spool:
    """Operations that wait in a JSONL file, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __bool__(self) -> bool:
        return self.path.exists()

    def append(self, ops: Iterable[Op]) -> None:
        lines = "".join(json.dumps(op) + "\n" for op in ops)
        if lines:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torn = self._ends_torn()
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" + lines if torn else lines)

    def read(self, offset: int = 0, limit: int = 2000) -> tuple[list[Op], int]:
        """Read at most `limit` operations from byte `offset`; returns them and where the next ones start."""
        ops: list[Op] = []
        if not self.path.exists():
            return ops, offset
        with self.path.open("rb") as file:
            # Shorter than before: `sync` took the file away in between, and it began anew.
            file.seek(offset if offset <= self.path.stat().st_size else 0)
            while len(ops) < limit and (line := file.readline()):
                try:
                    ops.append(json.loads(line))
                except json.JSONDecodeError:
                    continue  # torn by a process that was killed while it wrote
            return ops, file.tell()

    def __iter__(self) -> Iterator[Op]:
        ops, offset = self.read()
        while ops:
            yield from ops
            ops, offset = self.read(offset)

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)

    def _ends_torn(self) -> bool:
        if not self.path.exists() or self.path.stat().st_size == 0:
            return False
        with self.path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) != b"\n"


def _rises(point: Sequence[Any], reached: dict[str, int]) -> bool:
    """Whether a point is beyond the steps that its metric has reached; then it has reached this one."""
    key, _, _, step = point
    rises: bool = step > reached.get(key, -1)
    if rises:
        reached[key] = step
    return rises


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
