"""How many steps the trials of a study would need, by the law that an earlier study has been fitted with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.plan.sizing import Forecast, Trial
from tdmpc_ray.studies.plan.trials import point_label
from tdmpc_ray.studies.results.analysis.fitted_laws import Fitted
from tdmpc_ray.studies.results.analysis.law_runs import PARAMETERS, RATIO, LawRuns, law_runs
from tdmpc_ray.studies.results.analysis.law_words import fit_study, threshold_words
from tdmpc_ray.studies.results.analysis.section import Evidence
from tdmpc_ray.studies.results.costs import with_costs
from tdmpc_ray.studies.results.laws.budget import places_on
from tdmpc_ray.studies.results.laws.data_law import DataLaw
from tdmpc_ray.studies.results.scaling import Interval
from tdmpc_ray.studies.results.study_runs import StudyRuns, load_study_runs

_NEAR = 0.02  # sizes of one name differ a little by task
SURE = 0.95  # share of runs that are to reach a threshold
_INTERVAL = (0.025, 0.975)


@dataclass(frozen=True)
class Need:
    """What a trial needs to reach a threshold.

    Attributes:
        label: of the trial.
        threshold: a result, in words.
        steps: after which `SURE` of such runs have reached it.
        interval: of these steps, 95 %, over the law's refits.
        hours: of one such run on what the study is planned for, with `hours_interval`.
        share: of such runs that the study's own steps suffice for.
        is_beyond: the trial's size or ratio lies outside of what the law was fitted to.
    """

    label: str
    threshold: str
    steps: float
    interval: Interval
    hours: float
    hours_interval: Interval
    share: float
    is_beyond: bool


def needs(
    study: Study,
    forecast: Forecast,
    named: tuple[str, str, list[str] | None],
    thresholds: Sequence[float] = (),
) -> list[Need]:
    """What each of a study's trials needs, thresholds rising, the fastest trial of each first.

    Args:
        study: not started.
        forecast: of its trials.
        named: experiment, address and studies whose runs tell the law.
        thresholds: results; none: those that the runs' curves suggest.

    Raises:
        UserError: these runs tell no law, or one of other tasks.
    """
    experiment, uri, studies = named
    runs = with_costs(load_study_runs(experiment, uri, studies), uri)
    if set(runs.tasks) != set(study.task_names):
        own, theirs = ", ".join(study.task_names), ", ".join(runs.tasks)
        raise UserError(f"--law: its runs are on {theirs}, and this study is on {own}: name one of the same")
    evidence = Evidence(runs)
    fitted = _laws(runs, evidence, thresholds)
    found = []
    for threshold in dict.fromkeys(one.threshold for one in fitted):
        laws = [one for one in fitted if one.threshold == threshold]
        words = threshold_words(threshold, evidence, laws[0].task)
        of_one = [_need(study, trial, laws, words) for trial in forecast.trials]
        found += sorted(of_one, key=lambda need: (need.is_beyond, need.hours))
    return found


def _laws(runs: StudyRuns, evidence: Evidence, thresholds: Sequence[float]) -> list[Fitted]:
    of_laws = law_runs(evidence)
    if isinstance(of_laws, str):
        raise UserError(f"--law: study '{runs.study}' tells none: {of_laws}")
    fitted = fit_study(evidence, of_laws, thresholds)
    first = of_laws.tasks[0]
    laws = [one for one in fitted if isinstance(one.law, DataLaw) and one.task == first]
    if not laws:
        reasons = dict.fromkeys(str(one.law) for one in fitted) or {_nothing(of_laws): None}
        raise UserError(f"--law: study '{runs.study}' tells none: {'; '.join(reasons)}")
    return laws


def _nothing(runs: LawRuns) -> str:
    return "its runs do not rise enough" if runs.axes else "it varies neither model size nor ratio"


def _tried(trial: Trial, fitted: Fitted) -> bool:
    """Whether a trial's ratio and size lie within those of the runs that a law was fitted to."""
    rows = fitted.runs.rows
    return all(
        rows[column].min() * (1 - _NEAR) <= value <= rows[column].max() * (1 + _NEAR)
        for column, value in (("ratio", trial.ratio), ("params", trial.num_params))
    )


def _need(study: Study, trial: Trial, laws: Sequence[Fitted], threshold: str) -> Need:
    """By the law whose runs had such ratios and sizes; by the first one, where none had."""
    fitted = next((one for one in laws if _tried(trial, one)), laws[0])
    law = fitted.law
    assert isinstance(law, DataLaw)
    place = places_on(law, {RATIO: np.array([trial.ratio]), PARAMETERS: np.array([float(trial.num_params)])})
    # Runs differ, and the law is not known exactly: the share that is wanted is of both.
    luck = law.luck * np.random.default_rng(0).standard_normal((len(law.samples), 200))
    drawn = np.log(law.sampled(place)) + luck  # (samples, runs)
    steps = float(np.exp(np.quantile(drawn, SURE)))
    low, high = np.exp(np.quantile(np.quantile(drawn, SURE, axis=1), _INTERVAL))

    def hours(count: float) -> float:
        return (trial.start_s + count / trial.rate) / 3600

    return Need(
        point_label(study, trial.point),
        threshold,
        steps,
        Interval(float(low), float(high)),
        hours(steps),
        Interval(hours(float(low)), hours(float(high))),
        float((drawn <= np.log(trial.point.steps)).mean()),
        not _tried(trial, fitted),
    )
