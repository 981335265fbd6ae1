"""Applies operations to an MLflow server or database, and tells what MLflow refuses from what has to wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from tdmpc_ray.studies.tracking.client import connect, ensure_experiment, one_line
from tdmpc_ray.studies.tracking.ops import MAX_POINTS, RUN_KEY, Op, halves

MAX_PARAMS = 100  # parameters, or tags, per request
_REJECTIONS = (
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "INVALID_STATE",
)
_ENDS = ("FINISHED", "FAILED", "KILLED")
_GONE = "'active' state"  # a run, or its experiment, was deleted


class RunMissing(LookupError):
    """MLflow answers, but knows no run of this key."""


def is_rejection(error: BaseException) -> bool:
    """True where MLflow has understood and refused, so that trying again is in vain."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return str(error.error_code) in _REJECTIONS
    return isinstance(error, FileNotFoundError | IsADirectoryError | RunMissing | TypeError)


class OpSender:
    """Applies operations to an MLflow server or database.

    Args:
        uri: address of MLflow.
        run_ids: run keys to MLflow's ids, as far as known; filled in as runs are found or created.
        patience: attempts at an operation that fails while MLflow answers other questions; then it counts as
            refused, as it would hold up all that come after it.
    """

    def __init__(self, uri: str, run_ids: dict[str, str], patience: int = 1) -> None:
        self._uri = uri
        self._client: Any = None
        self._experiments: dict[str, str] = {}
        self._last_steps: dict[str, dict[str, int]] = {}  # of a run's metrics
        self.run_ids = run_ids
        self.fresh: set[str] = set()  # runs that nobody has tried to create
        self._sole: set[str] = set()  # that were created at the first attempt, so that they have no twins
        self._patience = patience
        self._failing: Any = None  # the operation that failed last, and how often in a row
        self._failures = 0
        self._lock = threading.Lock()  # a thread that was given up may wait in a request still

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
            points = self._lacking(run_id, op["points"]) if op.get("late") else op["points"]
            self._log_metrics(run_id, points, rising=op.get("rising", False) and not op.get("late"))
        elif kind == "status":
            if op.get("late") and (
                op["status"] == "RUNNING" or self._client.get_run(run_id).info.status in _ENDS
            ):
                return  # what came after it has been delivered
            if op["status"] in _ENDS:
                self._delete_twins(experiment, op["run"])
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

    def deliver(self, experiment: str, op: Op, *, is_last_attempt: bool = False) -> list[Op]:
        """Apply one operation, the bad points of many apart from the good ones.

        Args:
            experiment: its name.
            op: to apply.
            is_last_attempt: what fails while MLflow answers is refused at once.

        Returns:
            What MLflow refuses for good, each with its `experiment` and `reason`, and marked `late`.

        Raises:
            Exception: MLflow is away.
        """
        try:
            with self._lock:
                self.apply(experiment, op)
        except Exception as error:
            if not is_rejection(error):
                if not (self._answers() and (is_last_attempt or self._has_failed_enough(op))):
                    raise
                is_last_attempt = True
            parts = [] if isinstance(error, RunMissing) or _GONE in str(error) else halves(op)
            if parts:
                again = [self.deliver(experiment, part, is_last_attempt=is_last_attempt) for part in parts]
                return [refused for part in again for refused in part]
            return [{**op, "experiment": experiment, "reason": one_line(error), "late": True}]
        return []

    def _has_failed_enough(self, op: Op) -> bool:
        if op["op"] == "artifact":  # a store of its own, which must not hold up the metrics
            return True
        this = (op["op"], op["run"], op.get("points", [None])[0])
        self._failures = self._failures + 1 if this == self._failing else 1
        self._failing = this
        return self._failures >= self._patience

    def _answers(self) -> bool:
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
            found = self._search(experiment, run)
            if not found:
                return None
            self.run_ids[run] = found[0].info.run_id
        return self.run_ids[run]

    def _create(self, experiment: str, op: Op) -> None:
        is_first = op["run"] in self.fresh
        self.fresh.discard(op["run"])  # an attempt that fails for us may have made it
        run_id = None if is_first else self.find(experiment, op["run"])
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
            if is_first:
                self._sole.add(op["run"])
            self._delete_twins(experiment, op["run"])
        self._log_strings(run_id, params=op["params"])

    def _delete_twins(self, experiment: str, run: str) -> None:
        """Delete what a request to create the run has made that had failed for us: empty runs of its key."""
        if run in self._sole:
            return
        for found in self._search(experiment, run):
            if found.info.run_id != self.run_ids[run] and not found.data.metrics:
                self._client.delete_run(found.info.run_id)

    def _search(self, experiment: str, run: str) -> list[Any]:
        """The runs with our key, those with metrics first; one, unless a request was lost on its way back."""
        found = self._client.search_runs([self._experiment_id(experiment)], f"tags.`{RUN_KEY}` = '{run}'")
        return sorted(found, key=lambda one: (not one.data.metrics, one.info.run_id))

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

    def _lacking(self, run_id: str, points: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
        """Of points that come long after others, those at whose steps the run has none."""
        has = {
            (key, point.step)
            for key in {point[0] for point in points}
            for point in self._client.get_metric_history(run_id, key)
        }
        return [point for point in points if (point[0], point[3]) not in has]

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
