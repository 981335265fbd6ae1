"""A study that goes on: Tune's saved state has its trials; all else is as the study says now, where it is."""

from __future__ import annotations

import contextlib
import importlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

from ray.tune import Checkpoint
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from tdmpc_ray.core.config import PATH_SETTINGS
from tdmpc_ray.errors import UserError, reason
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.run import interrupt
from tdmpc_ray.studies.run.scheduling import OVERRIDES, STEPS

# Of the controller's saved attributes the ones that its arguments have set.
_GIVEN = ("_stopper", "_checkpoint_period", "_trial_checkpoint_config", "_fail_fast", "_metric", "_staged_as")


@contextlib.contextmanager
def trials_alone_restored(take: Callable[[Trial], None], limit: int | None = None) -> Iterator[None]:
    """Within, an experiment that Tune resumes takes its trials alone from disk.

    Tune itself would make the trials that do not exist yet from the saved experiment: with the folder, the
    steps and the settings of then.

    Args:
        take: called with each restored trial before it is queued.
        limit: trials at once, at most; the search counts only those that it makes.
    """
    module: Any = importlib.import_module("ray.tune.tune")
    original = module.TuneController

    module.TuneController = type("Controller", (_Controller,), {"taken": staticmethod(take), "limit": limit})
    try:
        yield
    finally:
        module.TuneController = original


class TakeFromStudy:
    """Gives restored trials what the study says of them now, and reopens those that have more steps to go.

    Attributes:
        reopened: ids of trials that had ended at their last step.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        settings = study.settings()
        self._paths = {key: settings[key] for key in PATH_SETTINGS if key in settings}
        self.reopened: set[str] = set()

    def __call__(self, trial: Trial) -> None:
        total, before = self._study.steps_of(trial.config["env_config"]["task"]), trial.config["total_steps"]
        # Tune makes a trial's config anew from what it began with, without what a population has changed.
        now: dict[str, Any] = {"total_steps": total, OVERRIDES: {**trial.config[OVERRIDES], **self._paths}}
        if "start_from" in trial.config:
            now["start_from"] = self._study.start_from
        for config in (trial.config, trial._Trial__unresolved_config):
            config.update(now)
        trial.max_failures = self._study.max_failures
        result = trial.run_metadata.last_result
        if trial.status == Trial.TERMINATED and before <= result.get(STEPS, 0) < total:
            trial.run_metadata.last_result = {**result, "done": False}
            trial.set_status(Trial.PENDING)
            self.reopened.add(trial.trial_id)
        trial.invalidate_json_state()


class _Controller(TuneController):
    """Tune's loop."""

    resumed = False  # so that Tune tells the search of the experiment as it is now
    limit: int | None = None

    def __init__(self, **options: Any) -> None:
        self._not_restored: Exception | None = None
        # Names the folder in Ray's session where Tune keeps its state before it copies it: two studies that
        # began in one second, or a study and its copy, would find each other's there.
        self._staged_as = options["storage"]._timestamp = uuid.uuid4().hex
        interrupt.tune_loop_begins()
        super().__init__(**options)
        if self._not_restored is not None:
            raise UserError(f"cannot resume: Tune's state is damaged ({reason(self._not_restored)})")

    def taken(self, trial: Trial) -> None:
        """Called with each restored trial."""

    def _maybe_add_actors(self) -> None:
        if self.limit is None:
            super()._maybe_add_actors()
            return
        room = self.limit - len(self._staged_trials | self._trial_to_actor.keys())
        if room > 0:
            # Tune's own bound is on trials whose processes have not started yet.
            self._max_pending_trials = self._actor_manager.num_pending_actors + room
            super()._maybe_add_actors()

    def resume(self, resume_config: Any) -> None:
        try:
            super().resume(resume_config)
            if not self._search_alg.has_checkpoint(self._storage.experiment_driver_staging_path):
                raise FileNotFoundError("the state of the search is missing")
        except Exception as error:  # Tune would begin anew, over the trials that are there
            self._not_restored = error

    def _restore_trials(self, experiment_state: dict[str, Any]) -> list[Trial]:
        trials: list[Trial] = super()._restore_trials(experiment_state)
        self._storage._timestamp = self._staged_as
        for trial in trials:
            trial.storage._timestamp = self._staged_as
            trial.init_local_path()
            self._bring_checkpoints(trial)
            self.taken(trial)
        return trials

    def _bring_checkpoints(self, trial: Trial) -> None:
        """Name a trial's checkpoints by where they lie now.

        Tune's own way leaves those that a population has taken from another trial, and goes wrong where the
        new path ends in the old one.
        """
        manager = trial.run_metadata.checkpoint_manager
        latest = manager.latest_checkpoint_result
        for result in {id(r): r for r in (*manager.best_checkpoint_results, latest) if r}.values():
            owner, name = PurePosixPath(result.checkpoint.path).parts[-2:]
            path = f"{self._storage.experiment_fs_path}/{owner}/{name}"
            result.checkpoint = Checkpoint(path=path, filesystem=self._storage.storage_filesystem)
        trial.invalidate_json_state()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({name: value for name, value in state.items() if name not in _GIVEN})
