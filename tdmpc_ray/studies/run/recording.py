"""Tune's callback that keeps metrics.csv and result.json of a study's folder up to date."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune

from tdmpc_ray import __version__
from tdmpc_ray.studies.file.metrics_file import METRICS_FILE, STEPS, TRIAL, MetricsFile
from tdmpc_ray.studies.file.record import (
    RECORD_FILE,
    Status,
    StudyRecord,
    TrialRecord,
    read_record,
    write_record,
)
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.run.outcome import StudyResult, trial_name
from tdmpc_ray.studies.tracking.naming import trial_label

_COLUMNS = (TRIAL, "label", "task", "model_size", "seed", STEPS, "time_s", "evaluated_at")
_INTERVAL_S = 5.0  # between two writings of result.json that nothing but steps is new in

Params = Callable[[dict[str, Any]], Mapping[str, Any]]


class RecordResults(tune.Callback):
    """Writes every result into metrics.csv, and how the study stands into result.json.

    Args:
        study: what is run.
        out: its folder.
        trial_params: a trial's config to its parameters.
        label_params: the part of it that names the trial.
        say: called with a line for the user where a file cannot be written; the study goes on.
    """

    def __init__(
        self, study: Study, out: Path, trial_params: Params, label_params: Params, say: Callable[[str], None]
    ) -> None:
        self._study = study
        self._out = out
        self._trial_params, self._label_params = trial_params, label_params
        self._say: Callable[[str], None] | None = say
        self._metrics: MetricsFile | None = None
        self._record: StudyRecord | None = None
        self._trials: dict[str, TrialRecord] = {}
        self._written = float("-inf")
        self._lost = False

    def setup(
        self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any
    ) -> None:
        before, study = read_record(self._out), self._study
        self._record = StudyRecord(
            tdmpc_ray=__version__,
            name=study.name,
            tasks=study.task_names,
            metric=study.score,
            steps=study.most_steps,
            expected_trials=study.trials(),
            status="running",
            started=before.started if before else time.time(),
            updated=time.time(),
            trials=before.trials if before else [],
        )
        self._trials = {record.trial: record for record in self._record.trials}
        try:
            self._metrics = MetricsFile(self._out / METRICS_FILE, _COLUMNS)
        except (OSError, ValueError, KeyError) as error:
            self._lose(METRICS_FILE, error)
        self._write()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._of(trial)
        record.status, record.total_steps = "running", trial.config.get("total_steps")
        self._write()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        record, report = self._of(trial), result.get("report") or {}
        evaluation = {name: value for name, value in report.items() if name.startswith("eval/")}
        record.env_steps = int(result.get("env_steps", record.env_steps))
        record.hours = round(float(result.get("time_total_s", 0.0)) / 3600, 4)
        record.train_return = report.get("train/return", record.train_return)
        row = {TRIAL: record.trial, "label": record.label, STEPS: record.env_steps}
        row |= {name: record.params.get(name) for name in ("task", "model_size", "seed")}
        row |= {"time_s": result.get("time_total_s"), **report}
        if evaluation:
            # One beside the training tells of networks that are some steps old.
            record.evaluated_at = row["evaluated_at"] = int(result.get("evaluated_at", record.env_steps))
            record.evaluation = evaluation
        if self._metrics is not None:
            try:
                self._metrics.add(row)
            except OSError as error:
                self._lose(METRICS_FILE, error)
        if evaluation or time.monotonic() - self._written >= _INTERVAL_S:
            self._write()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._of(trial).status = "finished"
        self._write()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._of(trial).status = "failed"
        self._write()

    def close(self, result: StudyResult) -> None:
        """Write how the study has ended."""
        ended: Status = "stopped" if result.unfinished else "failed" if result.failed else "finished"
        if self._record is not None:
            self._record.expected_trials = result.finished + result.unfinished + len(result.failed)
        self._end(ended)

    @contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Within, an error or a Ctrl-C that ends the study is written down as its end."""
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            if self._record is None:
                self.setup()
            self._end("stopped" if isinstance(error, KeyboardInterrupt) else "failed")
            raise

    def _end(self, status: Status) -> None:
        for record in self._trials.values():
            if record.status == "running":
                record.status = "stopped"
        if self._record is not None:
            self._record.status = status
        self._write()

    def _of(self, trial: Any) -> TrialRecord:
        name = trial_name(trial)
        if name not in self._trials:
            self._trials[name] = TrialRecord(
                trial=name,
                label=trial_label(self._label_params(trial.config)),
                params={key: _plain(value) for key, value in self._trial_params(trial.config).items()},
            )
        return self._trials[name]

    def _write(self) -> None:
        if self._record is None:
            return
        self._written, self._record.updated = time.monotonic(), time.time()
        self._record.trials = [*self._trials.values()]
        try:
            write_record(self._out, self._record)
        except OSError as error:
            self._lose(RECORD_FILE, error)

    def _lose(self, name: str, error: Exception) -> None:
        """Say once that a file is not kept: MLflow has it all."""
        if not self._lost and self._say is not None:
            self._say(f"note: {self._out / name} cannot be written ({error}); MLflow gets it all the same")
        self._lost = True

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks; a resume makes new ones.
        return {**self.__dict__, "_say": None, "_metrics": None, "_record": None, "_trials": {}}


def _plain(value: Any) -> str | int | float | bool | None:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
