"""A study's way: file -> Tune on Ray -> MLflow -> table and figure. Also its continuation after a stop."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.tune_config import ResumeConfig
from rich.console import Console
from rich.text import Text

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.files import TRACKING_FOLDER
from tdmpc_ray.studies.file.folder import FIGURE_FILE, begin, going_on, original
from tdmpc_ray.studies.file.notes import notes
from tdmpc_ray.studies.file.place import StudyPlace
from tdmpc_ray.studies.file.python_path import remember_folder, use_folder_again
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.file.tune_folder import TUNE_FOLDER
from tdmpc_ray.studies.models.register import log_best_models
from tdmpc_ray.studies.plan.labels import label_params, steps, trial_params
from tdmpc_ray.studies.plan.room import most_of_each, turns
from tdmpc_ray.studies.results.compare import render_table
from tdmpc_ray.studies.results.figures import scaling_figure
from tdmpc_ray.studies.results.study_runs import load_study_runs
from tdmpc_ray.studies.results.views import offer_view
from tdmpc_ray.studies.run.baseline import LogBaseline, random_baselines
from tdmpc_ray.studies.run.checks import prepare
from tdmpc_ray.studies.run.cluster import check_resources, cluster_capacity, ray_session
from tdmpc_ray.studies.run.continuing import TakeFromStudy, trials_alone_restored
from tdmpc_ray.studies.run.interrupt import SaveTrials, graceful_stop
from tdmpc_ray.studies.run.loggers import make_loggers
from tdmpc_ray.studies.run.outcome import Outcome, StudyResult, failure_reason, no_vain_tries, trial_name
from tdmpc_ray.studies.run.progress import ProgressTable
from tdmpc_ray.studies.run.recording import RecordResults
from tdmpc_ray.studies.run.scheduling import KeepRungs, StopWhenEnough
from tdmpc_ray.studies.run.searching import trials_left_out, trials_of
from tdmpc_ray.studies.run.waiting import SayWhatIsMissing
from tdmpc_ray.studies.tracking.callback import MLflowTracker, check_tracking
from tdmpc_ray.studies.tracking.spooled import REJECTED_FILE, SPOOL_FILE
from tdmpc_ray.studies.words import count, mlflow_command, program, resume_command, shown


def run_study(
    study: Study,
    out: str | Path,
    *,
    study_file: Path | None = None,
    modules: Path | None = None,
    trainable: type[tune.Trainable] | None = None,
    console: Console | None = None,
) -> StudyResult:
    """Run a study from its beginning.

    Args:
        study: what to run.
        out: the study's folder, or its address; new or empty.
        study_file: the file it was read from, to be kept with it.
        modules: a folder with modules of its tasks, which a resume looks into again; None: the file's.
        trainable: instead of the algorithm; gets a trial's own entries, and `preset`, as its config, and
            says `done` at `total_steps`.
        console: where to print; None: standard output.

    Raises:
        UserError: the folder is in use, MLflow does not answer, or the machine lacks what a trial needs.
    """
    place = StudyPlace.of(out)
    place.require_empty()
    run = _Run(study, place, trainable, console or Console())
    with place.taken(run.say, is_new=True):
        artifacts = begin(study, place.out, study_file)
        if study_file is not None and study_file.is_file():  # a pipe lies in no folder
            modules = study_file.parent
        if modules is not None:
            remember_folder(place.out, modules)
        return run(resume=False, artifacts=artifacts)


def resume_study(
    out: str | Path,
    *,
    changes: Mapping[str, Any] | None = None,
    trainable: type[tune.Trainable] | None = None,
    console: Console | None = None,
) -> StudyResult:
    """Continue a study that was stopped, killed or had failing trials, from its newest checkpoints.

    One that has ended goes on where its file, or `changes`, say more steps, seeds or samples than before.

    Args:
        out: the study's folder, wherever it lies now, or its address.
        changes: keys of its file to values that replace those there.
        trainable: as for `run_study`.
        console: where to print; None: standard output.

    Raises:
        UserError: the folder is no study's, or its file says what trials that have begun cannot take.
    """
    place, console = StudyPlace.of(out), console or Console()
    place.require_study()
    with place.taken(lambda line: console.print(Text(line), soft_wrap=True)):
        use_folder_again(place.out)
        study, grown = going_on(place.out, changes or {}, has_trials=place.tune.has_trials)
        run = _Run(study, place, trainable, console, resume=True)
        if place.mirror is None and (other := original(place.out)) is not None:
            run.say(
                f"note: this is a copy of {shown(other)}: both log to the same runs in MLflow, so go on with "
                "one of them only, or compare them by their folders"
            )
        for more in grown:
            run.say(f"it gets more {more}")
        artifacts = begin(study, place.out, None) if grown or changes else ()
        return run(resume=place.tune.has_trials(), artifacts=artifacts)


class _Run:
    """One process's part of a study."""

    def __init__(
        self,
        study: Study,
        place: StudyPlace,
        trainable: type[tune.Trainable] | None,
        console: Console,
        resume: bool = False,
    ) -> None:
        self.study, self.place, self.out, self.console = study, place, place.out, console
        # Everything that can be wrong shows here, before anything is written or started.
        self.plan, self.search, self.scheduler = prepare(study, trainable)
        self.need = most_of_each(self.plan.requests)
        check_resources(self.need)
        try:
            check_tracking(study.tracking.uri, study.tracking.experiment)
        except UserError as error:
            if study.tracking.required and not resume:
                raise
            self.say(f"note: {error}; until then, metrics wait in {shown(self.out / TRACKING_FOLDER)}")

    def __call__(self, *, resume: bool, artifacts: Sequence[Path] = ()) -> StudyResult:
        """Run it; where a Ctrl-C leaves no time for more, say at least how to go on."""
        try:
            return self._run(resume, artifacts)
        except KeyboardInterrupt:
            self.say(f"resume with: {resume_command(self.place.given)}")
            raise

    def _run(self, resume: bool, artifacts: Sequence[Path]) -> StudyResult:
        study, what, where = self.study, "resuming" if resume else "starting", shown(self.place.given)
        trials = f"{count(study.trials(), 'trial')} of {steps(study)}"
        self.say(f"{what} {study.name}: {trials} on {study.what}, in {where}")
        for note in notes(study):
            self.say(f"note: {note}")
        if resume:
            self.say(self.place.tune.saved_trials())
        public = study.public()  # Tune pickles what it is given, and others may read that
        label = partial(label_params, study=public)
        take = TakeFromStudy(study)
        tracker = MLflowTracker(
            uri=study.tracking.uri,
            experiment=study.tracking.experiment,
            study=study.name,
            spool_dir=self.out / TRACKING_FOLDER,
            trial_params=trial_params,
            label_params=label,
            artifacts=artifacts,
            expected_trials=self.expected_trials,
            enough=public.enough,
            reopened=take.reopened,
            failure=failure_reason,
            kind=study.kind,
            evaluation_every=study.evaluation.every,
        )
        outcome = Outcome(label, take.reopened)
        record = RecordResults(public, self.out, trial_params, label, self.say)
        callbacks = self.callbacks(tracker, record, outcome, label)
        # What Tune has not noted when it is killed is run again; noting takes long where trials are many.
        # There is no score before the first evaluation.
        os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
        os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", str(max(study.trials() / 20, 1)))
        noted, requests = record.noting_failure(), self.plan.requests
        with noted, ray_session(self.need, self.say, requests), graceful_stop() as request, no_vain_tries():
            if note := turns(study, requests, cluster_capacity()):
                self.say(f"note: {note}")
            self.say("Ray is up; the trials start")
            with trials_alone_restored(take, study.resources.max_concurrent_trials):
                self.tuner(callbacks, resume).fit()
            # Within: Tune asks Ray where its files are.
            result = outcome.result(self.out, request, self.expected_trials())
        record.close(result)
        if resume and not outcome.num_results and not result.failed and request.signum is None:
            self.say(
                "note: nothing was left to do; a new run with --start-from goes on from these networks, and "
                "`resume --steps` with more steps goes on with this one"
            )
        self.report(result, tracker)
        return result

    def callbacks(
        self, tracker: MLflowTracker, record: RecordResults, outcome: Outcome, label: Any
    ) -> list[tune.Callback]:
        """What Tune calls with every result, in this order; `label` makes a trial's words of its config."""
        from tdmpc_ray.rllib.checkpoints.garbage import CollectReplays  # late: RLlib takes seconds to import

        study = self.study
        baselines = random_baselines(study.task_names, self.out, self.say, study.env_step_timeout_s)
        return [
            tracker,
            LogBaseline(tracker, baselines),
            SaveTrials(study.checkpoint_steps, say=self.say),
            record,
            *make_loggers(study, self.out / TRACKING_FOLDER, trial_params, label),
            CollectReplays(),
            KeepRungs(self.scheduler),
            SayWhatIsMissing(self.plan.requests, self.say),
            ProgressTable(trial_params=label, console=self.console),
            outcome,
        ]

    def expected_trials(self) -> int:
        """How many there will have been; a search may have run out of suggestions."""
        return self.study.trials() - trials_left_out(self.search)

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
            self.plan.trainable,
            param_space=self.plan.fixed,
            tune_config=tune.TuneConfig(
                num_samples=len(self.plan.trials),  # Tune would end a model-based search after as many
                search_alg=trials_of(self.search),
                scheduler=self.scheduler,
                trial_name_creator=trial_name,
                trial_dirname_creator=trial_name,
            ),
            run_config=tune.RunConfig(
                name=TUNE_FOLDER,
                storage_path=self.place.folder,
                storage_filesystem=self.place.filesystem if self.place.mirror else None,
                callbacks=callbacks,
                stop=StopWhenEnough(study.public().enough),
                failure_config=tune.FailureConfig(max_failures=study.max_failures),
                checkpoint_config=tune.CheckpointConfig(
                    # A population needs the one that another trial is about to go on from.
                    num_to_keep=max(study.checkpoint.keep, 4 * study.scheduler.is_population),
                    checkpoint_at_end=True,
                ),
                verbose=0,
            ),
            _tuner_kwargs={"resume_config": again} if resume else None,
        )

    def report(self, result: StudyResult, tracker: MLflowTracker) -> None:
        """Print and log what came out, and say what to do next."""
        shows_charts = result.signum is None and self.results(tracker)
        for trial in result.failed:
            log = f" (log: {shown(trial.log)})" if trial.log else ""
            self.say(f"failed: {trial.name}: {trial.reason}{log}")
        again = resume_command(self.place.given)
        if result.signum is not None:
            saved = f"{len(result.checkpoints)} of {self.study.trials()} trials have a checkpoint"
            self.say(f"interrupted: {saved}; resume with: {again}")
        elif result.failed:
            self.say(f"once the cause is gone, continue with: {again}")
        sync = f"{program('tdmpc-ray')} sync {shlex.quote(shown(self.place.given))}"
        if (self.out / TRACKING_FOLDER / SPOOL_FILE).exists():
            self.say(f"MLflow has not got everything: once it answers, bring it the rest with: {sync}")
        elif (self.out / TRACKING_FOLDER / REJECTED_FILE).exists():
            self.say(f"MLflow has refused something: once the cause is gone, try again with: {sync}")
        if not shows_charts:
            self.say(f"open MLflow with: {mlflow_command(self.study.tracking.uri)}")

    def results(self, tracker: MLflowTracker) -> bool:
        """The table, the scaling figure and the charts, from MLflow; whether there are any."""
        tracking = self.study.tracking
        figure = self.out / FIGURE_FILE
        if tracker.parent_run_id is None:  # another study there may have this one's name
            self.say("no results to show: MLflow has not got this study yet")
            return False
        try:
            runs = load_study_runs(tracking.experiment, tracking.uri, tracker.parent_run_id)
        except UserError as error:
            self.say(f"no results to show: {error}")
            return False
        self.console.print(render_table(runs))
        scaling_figure(runs).savefig(figure, dpi=160)
        tracker.study_run.log_artifact(figure)
        tracker.study_run.flush()
        if tracking.models:
            log_best_models(self.place.given, say=self.say)
        self.say(f"figure: {shown(figure)}")
        self.say(offer_view(runs, tracking.uri))
        return True

    def say(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)
