"""What fitted laws say, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.results.analysis.fitted_laws import Fitted, HeldOut, laws_of_study, main_law
from tdmpc_ray.studies.results.analysis.law_runs import ALL_TASKS, PARAMETERS, RATIO, LawRuns
from tdmpc_ray.studies.results.analysis.section import Evidence
from tdmpc_ray.studies.results.drawing import short
from tdmpc_ray.studies.results.laws.transfer import Transfer, transfer_rules
from tdmpc_ray.studies.results.random_policy import RUN_IDS
from tdmpc_ray.studies.results.statistics import Scale

_LETTERS = {RATIO: "ratio", PARAMETERS: "N"}


def fit_study(evidence: Evidence, runs: LawRuns, thresholds: Sequence[float] = ()) -> list[Fitted]:
    """The laws of a study, see `laws_of_study`.

    Args:
        evidence: the study.
        runs: its runs.
        thresholds: results, or scores where the tasks' results are of several kinds; none: as curves suggest.

    Raises:
        UserError: runs begin with such a result, or it is no score.
    """
    scale = result_scale(evidence, ALL_TASKS)
    if scale is None and any(not 0 < value <= 1 for value in thresholds):
        raise UserError("--threshold: these tasks' results are of several kinds: give scores, from 0 to 1")
    scores = [value if scale is None else float(scale.scores(value)) for value in thresholds]
    start = runs.of(runs.tasks[0]).start
    for value, score in zip(thresholds, scores, strict=True):
        if score <= start:
            raise UserError(f"--threshold {value:g}: a random policy gets as much, give a higher one")
    return laws_of_study(runs, scores)


def threshold_words(threshold: float, evidence: Evidence, task: str) -> str:
    """A score as the result that it stands for, where that is one for all tasks meant."""
    scale = result_scale(evidence, task)
    if scale is None:
        return f"score {threshold:.3g}"
    return f"{scale.low + threshold * (scale.high - scale.low):.4g}"


def result_scale(evidence: Evidence, task: str) -> Scale | None:
    """The scale between results and scores of a task, or of all where they share it."""
    found = [evidence.scales[task]] if task else evidence.scales.values()
    scales = list({scale[:2]: scale for scale in found}.values())
    return scales[0] if len(scales) == 1 else None


def task_words(task: str) -> str:
    """Its name for a reader."""
    return "mean over tasks" if task == ALL_TASKS else task


def law_name(fitted: Fitted, evidence: Evidence) -> str:
    """Threshold, task where there are several, and what its runs have in common."""
    task = task_words(fitted.task) if len(evidence.scales) > 1 else ""
    threshold = threshold_words(fitted.threshold, evidence, fitted.task)
    return ", ".join(filter(None, [task, threshold, fitted.at]))


def law_words(fitted: Fitted, evidence: Evidence) -> str:
    """The law with its intervals, or why there is none."""
    name = f"To {law_name(fitted, evidence)}: "
    if isinstance(fitted.law, str):
        return f"{name}no law, as {fitted.law}."
    law, found = fitted.law, fitted.law.parameters
    terms = [
        f"{short(found[f'term of {axis}'])} ({_LETTERS[axis]} / {short(float(np.exp(law.centre[k])))})"
        f"^-{found[f'exponent of {axis}']:.2f}"
        for k, axis in enumerate(law.axes)
    ]
    intervals = ", ".join(
        f"{what} {_number(what, low)} to {_number(what, high)}" for what, (low, high) in law.intervals.items()
    )
    words = (
        f"{name}D = {' + '.join([short(found['floor']), *terms])} (95% intervals: {intervals}; single runs "
        f"differ by a factor of {np.exp(law.spread):.2f})."
    )
    if idle := [axis for axis in fitted.seen.axes if axis not in law.axes]:
        words += f" Steps do not depend on {' or '.join(idle)} beyond chance."
    if law.doubts:
        words += (
            f" Its parameters are not identified: {'; '.join(law.doubts)}. Between the places that were "
            "tried it can be read, with its band; beyond them it says nothing."
        )
    return words


def law_row(fitted: Fitted, evidence: Evidence) -> dict[str, Any]:
    """The law as a row of a table."""
    row: dict[str, Any] = {
        "task": task_words(fitted.task),
        "threshold": threshold_words(fitted.threshold, evidence, fitted.task),
        "at": fitted.at,
        "runs": len(fitted.seen.steps),
        "reached": int(fitted.seen.is_reached.sum()),
    }
    if isinstance(fitted.law, str):
        row["why_none"] = fitted.law
    else:
        for name, value in fitted.law.parameters.items():
            row |= {name: value, f"{name}, low": fitted.law.intervals[name].low}
            row[f"{name}, high"] = fitted.law.intervals[name].high
        row["not identified"] = "; ".join(fitted.law.doubts)
        for one in fitted.held_out:
            row[f"error of the largest {one.axis}"] = one.error if one.is_reached else math.nan
    return {**row, RUN_IDS: tuple(run for ids in fitted.runs.rows["run_ids"] for run in ids)}


def law_metrics(fitted: Fitted, evidence: Evidence) -> dict[str, float]:
    """The law as metrics, such as `law/850/exponent_of_ratio` and its `..._low`, `..._high`; {} of none."""
    if isinstance(fitted.law, str):
        return {}
    parts = [fitted.task or "all"] if len(evidence.scales) > 1 else []
    parts += [threshold_words(fitted.threshold, evidence, fitted.task), fitted.at]
    place = "/".join(["law", *(part.replace(" ", "_") for part in parts if part)])
    found = {}
    for name, value in fitted.law.parameters.items():
        low, high = fitted.law.intervals[name]
        for ending, number in (("", value), ("_low", low), ("_high", high)):
            found[f"{place}/{name.replace(' ', '_')}{ending}"] = number
    for one in fitted.held_out:
        if one.is_reached:
            found[f"{place}/error_of_largest_{one.axis}"] = one.error
    return found


def _number(what: str, value: float) -> str:
    return f"{value:.2f}" if what.startswith("exponent") else short(value)


def foretold_words(fitted: Fitted, one: HeldOut, evidence: Evidence) -> str:
    """What the law of all other runs said about the largest place, and what came."""
    which = f"ratio {one.place:g}" if one.axis == RATIO else f"{short(one.place)} parameters"
    low, high = one.interval
    words = (
        f"Kept from the fit and foretold, to {law_name(fitted, evidence)}: with {which}, the law of all "
        f"others says {short(one.foretold)} {fitted.runs.unit} (95% interval {short(low)} to {short(high)}); "
    )
    if not one.is_reached:
        return words + f"some have not reached it, and took {short(one.found)} at least."
    inside = "inside" if low <= one.found <= high else "outside"
    return words + f"it took {short(one.found)}: an error of {one.error:+.0%}, {inside} the interval."


def transfer_words(runs: LawRuns, laws: Sequence[Fitted], evidence: Evidence) -> list[str]:
    """How the best batch size and learning rate move, where a study varies them."""
    main = main_law(laws)
    if main is None:
        return []
    own = runs.of(main.task)
    axes = {axis: [RATIO, PARAMETERS].index(axis) for axis in own.axes}
    rules = transfer_rules(own.cells(main.threshold), axes)
    return [_rule_words(rule, law_name(main, evidence)) for rule in rules]


def _rule_words(rule: Transfer, name: str) -> str:
    terms = " ".join(f"{_LETTERS[axis]}^{slope:+.2f}" for axis, slope in rule.slopes.items())
    ends = ", ".join(
        f"{axis} {low:+.2f} to {high:+.2f}" if low == low else f"{axis} not known"
        for axis, (low, high) in rule.intervals.items()
    )
    best = f"{rule.factor:.3g} {terms} (slopes' 95% intervals: {ends})"
    return f"Best {rule.setting} of each place, to {name}: {best}."
