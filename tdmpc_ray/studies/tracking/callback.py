"""Tune's callbacks to MLflow: one run per study, one child run per trial, for as long as the study lives.

A stock callback would start new runs after a restore, fail the study on a bad name or a dead server, and
leave the runs of an interrupted study RUNNING; this one does none of it.
"""

from __future__ import annotations

import atexit
import uuid
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune

from tdmpc_ray.studies.tracking import ops as run_ops
from tdmpc_ray.studies.tracking.client import (
    DEFAULT_URI,
    absolute_uri,
    check_tracking,
    public_uri,
    without_secrets,
)
from tdmpc_ray.studies.tracking.kind import KIND_TAG, StudyKind
from tdmpc_ray.studies.tracking.naming import clean_metrics, clean_params, clean_tags, trial_label
from tdmpc_ray.studies.tracking.provenance import provenance_tags
from tdmpc_ray.studies.tracking.spooled import replay_spool
from tdmpc_ray.studies.tracking.study_run import (
    ENOUGH,
    EVALUATION_EVERY,
    FAILURE,
    STOPPED_EARLY,
    StudyRun,
    now_ms,
)
from tdmpc_ray.studies.tracking.trial_record import TrialRecord

__all__ = ["DEFAULT_URI", "MLflowTracker", "StudyRun", "check_tracking", "replay_spool"]

DROPPED = "tracking/dropped_nonfinite"
FINAL_RETURN = "summary/final_return"
VIDEO_FOLDER = "videos"  # of a checkpoint, see rllib.algorithm; and of the run's artifacts


class MLflowTracker(tune.Callback):
    """Logs a study to MLflow from a background thread; no state of the server ever holds the study.

    Args:
        uri: address of MLflow.
        experiment: name of the experiment; created if absent.
        study: name of the study's own run.
        spool_dir: folder of this study for what MLflow has not got yet; kept across resumes.
        trial_params: a trial's config to its parameters (model_size, seed, task, preset, overrides).
        label_params: the part of it that names the trial's run; None: all of it.
        tags: tags of the study's run and of every trial's.
        artifacts: files to attach to the study's run at its start.
        expected_trials: how many the study has; Tune may not have created all of them when it is stopped.
        enough: a result to why its trial ends with it before its last step, empty where it does not; None: no
            trial does.
        failure: a trial of Tune to why it has failed.
        kind: what is special about its trials.
        evaluation_every: agent steps from one evaluation to the next; 0: not known.
        reopened: ids of trials that had ended and go on; until they start, the study has not ended.
        shutdown_s: the longest wait for MLflow at the end of the study; the rest is spooled.
    """

    def __init__(
        self,
        *,
        uri: str,
        experiment: str,
        study: str,
        spool_dir: Path,
        trial_params: Callable[[dict[str, Any]], Mapping[str, Any]] = dict,
        label_params: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
        tags: Mapping[str, str] | None = None,
        artifacts: Iterable[Path] = (),
        expected_trials: Callable[[], int] = int,
        enough: Callable[[Mapping[str, Any]], str] | None = None,
        failure: Callable[[Any], str] | None = None,
        kind: StudyKind = StudyKind.PLAIN,
        evaluation_every: int = 0,
        reopened: Set[str] = frozenset(),
        shutdown_s: float = 30.0,
    ) -> None:
        self._uri = absolute_uri(uri)
        self._experiment = experiment
        self._study = study
        self._spool_dir = Path(spool_dir).absolute()
        self._trial_params = trial_params
        self._label_params = label_params or trial_params
        self._tags = clean_tags(tags or {})
        self._artifacts = [Path(path) for path in artifacts]
        self._expected_trials = expected_trials
        self._enough = enough
        self._failure = failure
        self._kind = kind
        self._evaluation_every = evaluation_every
        self._reopened, self._begun = reopened, set[str]()
        self._shutdown_s = shutdown_s
        self._uid = f"{study}-{uuid.uuid4().hex[:12]}".replace("'", "_")  # it stands in search filters
        self._trials: dict[str, TrialRecord] = {}
        self._run_ids: dict[str, str] = {}
        self._resumed = False
        self._open = False
        self._run: StudyRun | None = None

    @property
    def study_run(self) -> StudyRun:
        """The study's own run; also usable after the study's end (then `flush` it)."""
        if self._run is None:
            self._run = StudyRun(
                uri=self._uri,
                experiment=self._experiment,
                study=self._study,
                uid=self._uid,
                folder=self._spool_dir,
                run_ids=self._run_ids,
            )
        return self._run

    @property
    def parent_run_id(self) -> str | None:
        """MLflow's id of the study's run; None where MLflow has not answered yet."""
        return self.study_run.run_id

    def setup(
        self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any
    ) -> None:
        if not self._resumed and (uid := StudyRun.saved_uid(self._spool_dir)):
            # Its process ended before Tune had saved anything: the same study all the same.
            self._uid, self._resumed, self._run = uid, True, None
        self.study_run.save()
        self._tags = {**self._tags, **clean_tags(provenance_tags())}
        self._open = True
        atexit.register(self.close)  # a second Ctrl-C leaves Tune without its last callback
        tags = {**self._tags, "study": self._study, "study_uid": self._uid, "kind": "study"}
        tags |= {KIND_TAG: str(self._kind), EVALUATION_EVERY: str(self._evaluation_every)}
        about: dict[str, Any] = {"tags": tags, "params": {}, "parent": None, "fresh": not self._resumed}
        self._put(run_ops.create(self._uid, name=self._study, time=now_ms(), **about))
        if self._resumed:
            self._put(run_ops.status(self._uid, "RUNNING", time=now_ms()))
        for path in self._artifacts:
            self.study_run.log_artifact(path)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        again = self._trials.get(trial.trial_id)
        record = self._begin(trial)
        self._begun.add(trial.trial_id)
        key = self._key(trial)
        if again is not None and record.end == "FAILED":
            self._put(run_ops.tags(key, {FAILURE: ""}))
        record.end = None
        record.spent_before, record.spent = record.all_spent(), {}
        if self._resumed or again is not None:
            self._put(run_ops.status(key, "RUNNING", time=now_ms()))
        for name, step, value in record.take_changes(self._trial_params(trial.config)):
            metrics, _ = clean_metrics({f"hp/{name}": value})
            self._put(run_ops.metrics(key, metrics, step=step, time=now_ms()))

    def _begin(self, trial: Any) -> TrialRecord:
        """The trial's record, and its run in MLflow."""
        params = dict(self._trial_params(trial.config))
        is_new = trial.trial_id not in self._trials
        record = self._trials.setdefault(trial.trial_id, TrialRecord(params=params, started=now_ms()))
        own = {"study": self._study, "study_uid": self._uid, "kind": "trial", "trial_id": trial.trial_id}
        # Also where the trial is known: the process that started it may have died before MLflow heard of it.
        self._put(
            run_ops.create(
                self._key(trial),
                name=trial_label(self._label_params(trial.config)),
                time=record.started,
                tags={**self._tags, **own},
                params=clean_params(record.params),
                parent=self._uid,
                fresh=is_new and not self._resumed,
            )
        )
        return record

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        record = self._trials.get(trial.trial_id)
        if record is None:
            return
        record.env_steps = int(result.get("env_steps", record.env_steps))
        record.enough = self._enough(result) if self._enough else ""
        rising = StudyKind.POPULATION not in self._kind  # a member may go on from a donor with fewer steps
        record.spend(result.get("spent") or {}, result.get("report") or {}, is_own=rising)
        spent = {f"spent/{name}": value for name, value in record.all_spent().items()}
        kept, dropped = clean_metrics({**(result.get("report") or {}), **spent})
        if dropped:
            record.dropped += dropped
            kept[DROPPED] = float(record.dropped)
        record.final_return = kept.get("eval/return", record.final_return)
        evaluated_at = int(result.get("evaluated_at", record.env_steps))  # of networks some steps old
        evaluation = {name: value for name, value in kept.items() if name.startswith("eval/")}
        cloning = {name: value for name, value in kept.items() if name.startswith("bc/")}
        rest = {name: value for name, value in kept.items() if name not in {*evaluation, *cloning}}
        cloned = int(cloning.get("bc/updates", 0))
        for step, values in ((evaluated_at, evaluation), (record.env_steps, rest), (cloned, cloning)):
            if values:
                self._put(run_ops.metrics(self._key(trial), values, step=step, time=now_ms(), rising=rising))

    def on_checkpoint(
        self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any
    ) -> None:
        for film in sorted(Path(checkpoint.path).glob(f"{VIDEO_FOLDER}/*")):
            self._put(run_ops.artifact(self._key(trial), film, VIDEO_FOLDER))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end_trial(trial, "FINISHED")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end_trial(trial, "FAILED")

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        for trial in trials:  # Tune may have noted an end that its callbacks' state lacks, when it was killed
            record = self._trials.get(trial.trial_id)
            if (record is None or record.end is None) and (status := _ended(trial)):
                self._end_trial(trial, status)
        waiting = self._reopened - self._begun
        known = {key: record.end for key, record in self._trials.items() if key not in waiting}
        ends = [known.get(trial.trial_id) for trial in trials]
        if None in ends or len(ends) < self._expected_trials():
            self.close("KILLED")
        else:
            self.close("FAILED" if "FAILED" in ends else "FINISHED")

    def close(self, status: str = "KILLED") -> Path | None:
        """End the study's run and those of its unfinished trials, and deliver what waits; once.

        Returns:
            The spool file if MLflow lacks something, else None.
        """
        if not self._open:
            return None
        self._open = False
        atexit.unregister(self.close)
        for trial_id, record in self._trials.items():
            if record.end is None:
                self._put(run_ops.status(f"{self._uid}/{trial_id}", "KILLED", time=now_ms()))
        self._put(run_ops.status(self._uid, status, time=now_ms()))
        return self.study_run.flush(self._shutdown_s)

    def get_state(self) -> dict[str, Any]:
        trials = {trial_id: asdict(record) for trial_id, record in self._trials.items()}
        run_ids = self._run.writer.run_ids if self._run else self._run_ids
        return {"uid": self._uid, "uri": public_uri(self._uri), "run_ids": run_ids, "trials": trials}

    def set_state(self, state: dict[str, Any]) -> None:
        self._uid = state["uid"]
        # Another MLflow has other ids; one that has moved is asked for them.
        is_same = state.get("uri", public_uri(self._uri)) == public_uri(self._uri)
        self._run_ids = dict(state["run_ids"]) if is_same else {}
        self._trials = {trial_id: TrialRecord(**values) for trial_id, values in state["trials"].items()}
        self._run = None
        self._resumed = True

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks; threads cannot be, a password should not.
        # What it unpickles is a study that goes on.
        public = {"_uri": public_uri(self._uri), "_expected_trials": int}
        return {**self.__dict__, **public, "_run": None, "_open": False, "_resumed": True}

    def _end_trial(self, trial: Any, status: str) -> None:
        record = self._trials.get(trial.trial_id)
        if record is None and status == "FAILED":  # Tune calls no trial started that fails to be set up
            record = self._begin(trial)
        if record is None:
            return
        record.end = status
        key = self._key(trial)
        if record.final_return is not None:
            final = {FINAL_RETURN: record.final_return}
            self._put(run_ops.metrics(key, final, step=record.env_steps, time=now_ms()))
        if status == "FAILED" and self._failure and (reason := self._failure(trial)):
            self._put(run_ops.tags(key, clean_tags({FAILURE: without_secrets(reason)})))
        if status == "FINISHED" and record.env_steps < (total := trial.config.get("total_steps", 0)):
            at = f"at {record.env_steps:,} of {total:,} steps"
            tag = {ENOUGH: f"{record.enough}, {at}"} if record.enough else {STOPPED_EARLY: at}
            self._put(run_ops.tags(key, tag))
        self._put(run_ops.status(key, status, time=now_ms()))

    def _key(self, trial: Any) -> str:
        return f"{self._uid}/{trial.trial_id}"

    def _put(self, op: run_ops.Op) -> None:
        self.study_run.writer.put(op)


def _ended(trial: Any) -> str | None:
    """How a trial has ended, as Tune knows it. An interrupt leaves it TERMINATED, too, but not done."""
    if trial.status == "ERROR":
        return "FAILED"
    is_done = (getattr(trial, "last_result", None) or {}).get("done", False)
    return "FINISHED" if trial.status == "TERMINATED" and is_done else None
