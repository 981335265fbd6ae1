"""A study's way: file -> Tune on Ray -> MLflow -> table and figure. Also its continuation after a stop.

A study's folder holds

    study.yaml     the study with every default written out: all that a resume needs
    tune/          Tune's state; tune/<trial>/checkpoint_*, logs, error.txt
    mlflow/        what MLflow has not got yet
    baseline.json  the random policy's return
    scaling.png    the figure
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.tune_config import ResumeConfig
from rich.console import Console
from rich.text import Text

from tdmpc_ray.errors import UserError, reason
from tdmpc_ray.studies.baseline import LogBaseline, random_baseline
from tdmpc_ray.studies.cluster import quiet, ray_session
from tdmpc_ray.studies.interrupt import SaveTrials, Scheduler, graceful_stop
from tdmpc_ray.studies.mlflow_client import sqlite_path
from tdmpc_ray.studies.outcome import Outcome, StudyResult, shown, trial_name, trial_params
from tdmpc_ray.studies.progress import ProgressTable
from tdmpc_ray.studies.report import load_study_runs, render_table, scaling_figure, scaling_points
from tdmpc_ray.studies.spec import Study, load_study
from tdmpc_ray.studies.tracking import MLflowTracker, check_tracking

STUDY_FILE = "study.yaml"
TUNE_FOLDER = "tune"
TRACKING_FOLDER = "mlflow"
FIGURE_FILE = "scaling.png"


def run_study(
    study: Study,
    out: Path,
    *,
    study_file: Path | None = None,
    trainable: type[tune.Trainable] | None = None,
    console: Console | None = None,
) -> StudyResult:
    """Run a study from its beginning.

    Args:
        study: what to run.
        out: the study's folder; new or empty.
        study_file: the file it was read from, to be kept with it.
        trainable: instead of TD-MPC2; gets `Study.search_space()`, `task` and `total_steps` as its config.
        console: where to print; None: standard output.

    Raises:
        UserError: the folder is in use, MLflow does not answer, or the machine lacks what a trial needs.
    """
    out = Path(out).absolute()
    if out.is_dir() and any(out.iterdir()):
        raise UserError(
            f"{out} is not empty: continue it with `--resume {shown(out)}` or choose another --out"
        )
    run = _Run(study, out, trainable, console or Console())
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / STUDY_FILE).write_text(study.to_yaml(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from None
    artifacts = [out / STUDY_FILE]
    if study_file is not None and study_file.name != STUDY_FILE:
        artifacts.append(Path(shutil.copy(study_file, out / study_file.name)))
    return run(resume=False, artifacts=artifacts)


def resume_study(
    out: Path, *, trainable: type[tune.Trainable] | None = None, console: Console | None = None
) -> StudyResult:
    """Continue a study that was stopped, killed or had failing trials, from its newest checkpoints.

    Raises:
        UserError: the folder is no study's.
    """
    out = Path(out).absolute()
    if not (out / STUDY_FILE).is_file():
        raise UserError(f"{shown(out)} is not a study's folder: it has no {STUDY_FILE}")
    run = _Run(load_study(out / STUDY_FILE), out, trainable, console or Console())
    return run(resume=_has_trials(out / TUNE_FOLDER), artifacts=[out / STUDY_FILE])


class _Run:
    """One process's part of a study."""

    def __init__(
        self, study: Study, out: Path, trainable: type[tune.Trainable] | None, console: Console
    ) -> None:
        self.study = study
        self.out = out
        self.console = console
        # Everything that can be wrong shows here, before anything is written or started.
        quiet()
        check_tracking(study.tracking.uri, study.tracking.experiment)
        self.trainable, self.space = _trainable_and_space(study, trainable)

    def __call__(self, *, resume: bool, artifacts: list[Path]) -> StudyResult:
        study = self.study
        trials = "1 trial" if study.trials() == 1 else f"{study.trials()} trials"
        what = "resuming" if resume else "starting"
        self.say(
            f"{what} {study.name}: {trials} of {study.steps:,} steps on {study.task}, in {shown(self.out)}"
        )
        label = partial(trial_params, hide=frozenset(study.overrides))
        tracker = MLflowTracker(
            uri=study.tracking.uri,
            experiment=study.tracking.experiment,
            study=study.name,
            spool_dir=self.out / TRACKING_FOLDER,
            trial_params=trial_params,
            label_params=label,
            artifacts=[] if resume else artifacts,
        )
        outcome = Outcome(label)
        callbacks = [
            tracker,
            LogBaseline(tracker, random_baseline(study.task, self.out, self.say)),
            SaveTrials(study.checkpoint.every, say=self.say),
            ProgressTable(study.steps, trial_params=label, console=self.console),
            outcome,
        ]
        # What Tune has not noted when it is killed is run again; noting takes long where trials are many.
        os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", str(max(study.trials() / 20, 1)))
        with ray_session(self.resources_per_trial(), self.say), graceful_stop() as request:
            self.tuner(callbacks, resume).fit()
        result = outcome.result(self.out, request)
        self.report(result, tracker)
        return result

    def tuner(self, callbacks: list[tune.Callback], resume: bool) -> tune.Tuner:
        """Tune's experiment; where it is resumed, all but its trials comes from the study again."""
        study = self.study
        # Not Tuner.restore: it brings back the pickled callbacks, whose folders and addresses may be gone.
        again = ResumeConfig(
            unfinished=ResumeConfig.ResumeType.RESUME,
            errored=ResumeConfig.ResumeType.RESUME,
            finished=ResumeConfig.ResumeType.SKIP,
        )
        return tune.Tuner(
            self.trainable,
            param_space=self.space,
            tune_config=tune.TuneConfig(
                num_samples=study.num_samples,
                # The same draws for every size and seed, and in every run of the study.
                search_alg=BasicVariantGenerator(
                    max_concurrent=study.resources.max_concurrent_trials or 0,
                    constant_grid_search=True,
                    random_state=0,
                ),
                scheduler=Scheduler(),
                trial_name_creator=trial_name,
                trial_dirname_creator=trial_name,
            ),
            run_config=tune.RunConfig(
                name=TUNE_FOLDER,
                storage_path=str(self.out),
                callbacks=callbacks,
                stop={"env_steps": study.steps},
                failure_config=tune.FailureConfig(max_failures=study.max_failures),
                checkpoint_config=tune.CheckpointConfig(
                    num_to_keep=study.checkpoint.keep, checkpoint_at_end=True
                ),
                verbose=0,
            ),
            _tuner_kwargs={"resume_config": again} if resume else None,
        )

    def resources_per_trial(self) -> dict[str, float]:
        """What Ray reserves for one trial, of the study's first size."""
        config = self.study.config().to_dict() if hasattr(self.space, "to_dict") else self.space
        request = self.trainable.default_resource_request(config)
        return dict(request.required_resources) if request else {"CPU": 1.0}

    def report(self, result: StudyResult, tracker: MLflowTracker) -> None:
        """Print and log what came out, and say what to do next."""
        if result.signum is None:
            self.results(tracker)
        for trial in result.failed:
            log = f" (log: {shown(trial.log)})" if trial.log else ""
            self.say(f"failed: {trial.name}: {trial.reason}{log}")
        command = "train" if self.study.trials() == 1 else "tune"
        again = f"tdmpc-ray {command} --resume {shlex.quote(str(shown(self.out)))}"
        if result.signum is not None:
            saved = f"{len(result.checkpoints)} of {self.study.trials()} trials have a checkpoint"
            self.say(f"interrupted: {saved}; resume with: {again}")
        elif result.failed:
            self.say(f"once the cause is gone, continue with: {again}")
        self.say(f"open MLflow with: {mlflow_command(self.study.tracking.uri)}")

    def results(self, tracker: MLflowTracker) -> None:
        """The table and the scaling figure, from MLflow."""
        tracking = self.study.tracking
        figure = self.out / FIGURE_FILE
        try:
            runs = load_study_runs(
                tracking.experiment, tracking.uri, tracker.parent_run_id or self.study.name
            )
        except UserError as error:
            self.say(f"no results to show: {error}")
            return
        self.console.print(render_table(runs))
        scaling_figure(runs).savefig(figure, dpi=160)
        tracker.study_run.log_artifact(figure)
        tracker.study_run.log_scaling(scaling_points(runs))
        tracker.study_run.flush()
        self.say(f"figure: {shown(figure)}")

    def say(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)


def mlflow_command(uri: str) -> str:
    """The command that shows the runs, or the address where they are shown already."""
    path = sqlite_path(uri)
    if path is None and not uri.startswith(("postgresql", "mysql", "mssql")):
        return uri
    program = Path(sys.executable).with_name("mlflow")
    name = "mlflow" if shutil.which("mlflow") == str(program) else shlex.quote(str(shown(program)))
    address = uri if path is None else f"sqlite:///{shown(path)}"
    return f"{name} ui --backend-store-uri {shlex.quote(address)}"


def _trainable_and_space(
    study: Study, trainable: type[tune.Trainable] | None
) -> tuple[type[tune.Trainable], Any]:
    if trainable is not None:
        values = {"task": study.task, "preset": study.preset, "total_steps": study.steps}
        return trainable, {**values, **study.search_space()}
    from tdmpc_ray.rllib import TDMPC2

    try:
        study.config().validate()
    except ValueError as error:
        raise UserError(f"RLlib refuses this study: {reason(error)}") from None
    return TDMPC2, study.param_space()


def _has_trials(folder: Path) -> bool:
    """Whether Tune has saved trials there; without, it would silently begin anew, and so do we.

    Raises:
        UserError: its file is damaged.
    """
    newest = max(folder.glob("experiment_state-*.json"), default=None)
    if newest is None:
        return False
    try:
        return bool(json.loads(newest.read_text(encoding="utf-8"))["trial_data"])
    except (OSError, ValueError, KeyError):
        raise UserError(
            f"cannot resume: {shown(newest)} is damaged; the checkpoints beside it are whole, begin anew"
        ) from None
