"""The laws of a study, by task and threshold, with what they foretell of runs that were kept from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tdmpc_ray.studies.results.analysis.law_runs import PARAMETERS, RATIO, LawRuns
from tdmpc_ray.studies.results.laws.budget import places_on
from tdmpc_ray.studies.results.laws.crossings import choose_thresholds
from tdmpc_ray.studies.results.laws.data_law import (
    LEAST_ALONE,
    LEAST_PLACES,
    DataLaw,
    Observations,
    fit_data_law,
)
from tdmpc_ray.studies.results.laws.likelihood import Flags
from tdmpc_ray.studies.results.scaling import Floats, Interval

_WORDS = {RATIO: "ratio {:g}", PARAMETERS: "{:.3g} parameters"}


@dataclass(frozen=True)
class HeldOut:
    """The runs at the largest place of an axis, foretold by the law of all others.

    Attributes:
        axis: its name; `place` is theirs on it.
        foretold: steps, the geometric mean over these runs, with a 95 % interval.
        found: what they took on geometric mean; with `is_reached` False, at least that.
    """

    axis: str
    place: float
    foretold: float
    interval: Interval
    found: float
    is_reached: bool

    @property
    def error(self) -> float:
        """Foretold over found, less 1."""
        return self.foretold / self.found - 1


@dataclass(frozen=True)
class Fitted:
    """The law of one task at one threshold.

    Attributes:
        task: its name, or `ALL_TASKS`.
        threshold: the score.
        runs: what it was fitted to, of each place the runs with the best batch size and learning rate.
        at: what the runs have in common where an axis has too few places for the law: `ratio 1`.
        law: or why there is none.
    """

    task: str
    threshold: float
    runs: LawRuns
    at: str
    seen: Observations
    law: DataLaw | str
    held_out: tuple[HeldOut, ...] = field(default=())


def laws_of_study(runs: LawRuns, given: Sequence[float] = ()) -> list[Fitted]:
    """Those of all tasks together at every threshold, and of each task alone at one in the middle.

    Args:
        runs: of a study.
        given: scores, above what runs begin with; none: some that the curves suggest.
    """
    if not runs.axes:
        return []
    first, *alone = runs.tasks
    together = runs.of(first)
    laws = fit_laws(together, thresholds_of(together, given))
    for task in alone:
        own = runs.of(task)
        suggested = [value for value in thresholds_of(own, given) if value > own.start]
        laws += fit_laws(own, suggested[len(suggested) // 2 :][:1])
    return laws


def main_law(laws: Sequence[Fitted]) -> Fitted | None:
    """The one at the highest threshold, of all tasks together where there are several; None where none is."""
    known = [fitted for fitted in laws if isinstance(fitted.law, DataLaw)]
    of_first = [fitted for fitted in known if fitted.task == laws[0].task]
    return next(reversed(of_first or known), None)


def thresholds_of(runs: LawRuns, given: Sequence[float] = ()) -> list[float]:
    """Those given, or up to four that the runs' curves suggest."""
    return sorted(given) if given else choose_thresholds(list(runs.rows["curve"]))


def fit_laws(runs: LawRuns, thresholds: Sequence[float]) -> list[Fitted]:
    """The laws of one task's runs, by threshold and, where they have to be parted, by place."""
    return [
        _fitted(part, threshold, at) for threshold in thresholds for at, part in _parts(runs.tuned(threshold))
    ]


def _parts(runs: LawRuns) -> list[tuple[str, LawRuns]]:
    """All runs; or, where one of two axes has too few places, those of each of its places."""
    axes = runs.axes
    places = runs.places()
    counts = {axis: len(np.unique(places[:, k])) for k, axis in enumerate(axes)}
    short = [axis for axis in axes if counts[axis] < LEAST_PLACES]
    if len(axes) < 2 or not short:
        return [("", runs)]
    axis = short[0]
    column = places[:, axes.index(axis)]
    return [(_WORDS[axis].format(place), runs.where(column == place)) for place in np.unique(column)]


def _fitted(runs: LawRuns, threshold: float, at: str) -> Fitted:
    task = str(runs.rows["task"].iloc[0])
    if not runs.axes:
        none, nobody = np.empty(0), np.empty(0, dtype=bool)
        seen = Observations((), np.empty((0, 0)), none, nobody, none, nobody)
        return Fitted(task, threshold, runs, at, seen, "neither model size nor ratio varies")
    seen = runs.seen(threshold)
    law = fit_data_law(seen)
    held_out = [] if isinstance(law, str) else [_foretell(seen, k) for k in range(len(seen.axes))]
    return Fitted(task, threshold, runs, at, seen, law, tuple(one for one in held_out if one is not None))


def _foretell(seen: Observations, axis: int) -> HeldOut | None:
    """Of the largest place on an axis; None where too few are left, or they tell no law."""
    column = seen.places[:, axis]
    largest: Flags = column == column.max()
    least = LEAST_ALONE if len(seen.axes) == 1 else LEAST_PLACES
    if len(np.unique(column)) <= least:
        return None
    law = fit_data_law(seen.only(~largest))
    if isinstance(law, str):
        return None
    own = seen.only(largest)
    places = places_on(law, own.columns)
    middle = _geometric(law(places))
    # What the law does not know, and the luck of these few runs.
    luck = law.luck / np.sqrt(len(own.steps)) * np.random.default_rng(0).standard_normal(len(law.samples))
    drawn = np.exp(np.log(law.sampled(places)).mean(axis=1) + luck)
    interval = Interval(*map(float, np.quantile(drawn, [0.025, 0.975])))
    name, place = seen.axes[axis], float(column.max())
    return HeldOut(name, place, middle, interval, _geometric(own.steps), bool(own.is_reached.all()))


def _geometric(values: Floats) -> float:
    return float(np.exp(np.log(values).mean()))
