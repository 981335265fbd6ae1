"""Weights & Biases by Tune's callback; importing this takes the extra `wandb`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.air.integrations.wandb import WandbLoggerCallback
from ray.tune.result import TRAINING_ITERATION

from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.run.loggers import Params, evaluation_of
from tdmpc_ray.studies.tracking.naming import trial_label
from tdmpc_ray.studies.tracking.study_run import StudyRun

_UPLOAD_S = 60  # that it may take at a study's end; `wandb sync` brings it what is left


class WandB(WandbLoggerCallback):
    """A run per trial, in a group per study and a project per experiment.

    Args:
        study: what is run.
        spool_dir: where its tracker keeps the key of its run.
        trial_params: a trial's config to its parameters.
        label: a trial's config to the part of them that names it.
    """

    def __init__(self, study: Study, spool_dir: Path, trial_params: Params, label: Params) -> None:
        super().__init__(project=study.tracking.experiment, group=study.name, upload_timeout=_UPLOAD_S)
        self._spool_dir = spool_dir
        self._trial_params, self._label = trial_params, label

    def _start_logging_actor(self, trial: Any, exclude_results: list[str], **options: Any) -> None:
        # Tune's ids of trials are short: two studies of a project would meet. A resume goes on with its run.
        options["id"] = f"{StudyRun.saved_uid(self._spool_dir)}-{trial.trial_id}"
        options |= {"name": trial_label(self._label(trial.config)), "resume": "allow"}
        options["config"] = dict(self._trial_params(trial.config))
        super()._start_logging_actor(trial, exclude_results, **options)

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        steps, report = int(result.get("env_steps", 0)), result.get("report") or {}
        # It takes no step behind its newest: an evaluation beside the training says itself when it was.
        at = {"eval/env_steps": result.get("evaluated_at", steps)} if evaluation_of(report) else {}
        super().log_trial_result(iteration, trial, {**report, **at, TRAINING_ITERATION: steps})

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        for trial in [*self._trial_queues]:  # Tune ends none of those that an interrupt has stopped
            self._signal_logging_actor_stop(trial)
        super().on_experiment_end(trials, **info)
