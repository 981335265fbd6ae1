"""What the sections of a report share: their parts, and the scores that they compare."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from tdmpc_ray.studies.results.drawing import STYLE, aligned, rank_colours
from tdmpc_ray.studies.results.figures import MAX_LINES, places_on, shown_groups
from tdmpc_ray.studies.results.scaling import Floats
from tdmpc_ray.studies.results.statistics import Scale, score_scale
from tdmpc_ray.studies.results.study_runs import Group, StudyRuns, is_whole
from tdmpc_ray.studies.words import count

MIN_SEEDS = 3  # of two, an interval is the range between them
_MAX_NAMES = 8  # in a sentence
_PANEL = (5.2, 3.7)  # inches: on a phone's width its letters can still be read


@dataclass(frozen=True)
class Picture:
    """One figure: `name` is its file's, `alt` says what it shows to those who do not see it."""

    name: str
    alt: str
    figure: Figure
    is_wide: bool = False


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Attributes:
        key: name of its files, and its anchor on the page.
        title: heading.
        text: how to read it and what it is computed from, a paragraph each.
        pictures: its figures.
        table: its numbers, with the column `run_ids`; None where there is none.
        absent: why the data cannot support it; then the rest is empty.
        widget: HTML of a part that computes in the browser, without a network; trusted.
    """

    key: str
    title: str
    text: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    table: pd.DataFrame | None = None
    absent: str = ""
    widget: str = ""


@dataclass(frozen=True)
class Evidence:
    """A study's runs (with costs, see `with_costs`) and their scores.

    Attributes:
        runs: the runs.
        trials: the trials that results count, with `score` (see `Scale`): those that went to their end; where
            none has, all of them, with `final` at `common_step`.
        scales: task to its scale.
        common_step: the last agent step that all have reached; None where trials have gone to their end.
    """

    runs: StudyRuns
    trials: pd.DataFrame = field(init=False)
    scales: dict[str, Scale] = field(init=False)
    common_step: int | None = field(init=False)

    def __post_init__(self) -> None:
        runs = self.runs
        everyone = runs.trials[runs.trials["final"].notna()]
        whole = everyone[is_whole(everyone)]
        step = None
        if whole.empty:
            whole, step = _at_common_step(runs, everyone)
        scales = {
            str(task): score_scale(
                str(task), runs.metric, of_task["final"], runs.random_returns.get(str(task))
            )
            for task, of_task in whole.groupby("task")
        }
        object.__setattr__(self, "scales", scales)
        object.__setattr__(self, "trials", self._scored(whole))
        object.__setattr__(self, "common_step", step)

    def _scored(self, trials: pd.DataFrame) -> pd.DataFrame:
        pairs = zip(trials["task"], trials["final"], strict=True)
        return trials.assign(score=[float(self.scales[task].scores(final)) for task, final in pairs])

    @cached_property
    def searched(self) -> tuple[pd.DataFrame, int | None]:
        """The trials with scores that a search is judged by, and at which step.

        Whole ones by their ends. Where a scheduler has stopped some early, all at the last step that every
        one of them has reached.
        """
        trials = self.runs.trials
        evaluated = trials[trials["final"].notna() & trials["task"].isin(self.scales)]
        if self.common_step is not None or (evaluated["stopped_early"] == "").all():
            return self.trials, self.common_step
        evaluated = evaluated[is_whole(evaluated) | (evaluated["stopped_early"] != "")]
        at_step, step = _at_common_step(self.runs, evaluated)
        return self._scored(at_step), step

    def basis(self) -> tuple[str, ...]:
        """Which runs are compared, in a sentence; none where it is all of them, at their ends."""
        evaluated = self.runs.trials["final"].notna()
        out = int(evaluated.sum()) - len(self.trials)
        if self.common_step is not None:
            return (
                f"No run has gone to its end: all are compared by their results at {self.common_step:,} "
                "agent steps, which every one has reached.",
            )
        if out:
            lost = [task for task in self.runs.tasks if task not in self.scales]
            nowhere = f" No run on {listed(lost)} has gone that far." if lost else ""
            return (
                f"Compared are the {len(self.trials)} runs that went to their end, not the {out} that were "
                f"stopped early, failed or go on.{nowhere}",
            )
        return ()

    def of(self, group: Group) -> pd.DataFrame:
        """The counted trials of a group."""
        return self._by_group.get(group, self.trials.iloc[:0])

    @cached_property
    def _by_group(self) -> dict[Group, pd.DataFrame]:
        return dict(list(self.trials.groupby(["model_size", "setting"])))

    @cached_property
    def flops_lines(self) -> dict[tuple[str, Group], tuple[Floats, Floats]]:
        """Tasks and complete groups to places in FLOPs and values (seeds, places), where seeds share some.

        Seeds are in their order, so that those of several tasks are paired.
        """
        curves = places_on(self.runs.curves_of(self.trials), "flops").sort_values(["seed", "run_id"])
        by_group = dict(list(curves.groupby(["task", "model_size", "setting"])))
        lines = {}
        for task in self.scales:
            for group in self.complete:
                own = by_group.get((task, *group))
                if own is not None and len((line := aligned(own, "flops"))[0]):
                    lines[task, group] = line
        return lines

    def strata(self, group: Group) -> list[Floats]:
        """A group's scores, one array per task in the tasks' order."""
        return [part["score"].to_numpy(dtype=float) for _, part in self.of(group).groupby("task")]

    def run_ids(self, group: Group) -> tuple[str, ...]:
        """The runs behind a group's scores."""
        return tuple(self.of(group)["run_id"])

    @cached_property
    def complete(self) -> list[Group]:
        """Groups with a result on every task: those that can be compared."""
        tasks = self.trials.groupby(["model_size", "setting"])["task"].nunique().to_dict()
        return [group for group in self.runs.groups if tasks.get(group) == len(self.scales)]

    @cached_property
    def mean_scores(self) -> dict[Group, float]:
        """Mean over tasks of the mean score, of each complete group."""
        of_tasks = self.trials.groupby(["model_size", "setting", "task"])["score"].mean()
        means = of_tasks.groupby(level=["model_size", "setting"]).mean().to_dict()
        return {group: float(means[group]) for group in self.complete}

    @cached_property
    def random_scores(self) -> list[float]:
        """The random policy's score on each task; empty where its return on one is not known."""
        returns = self.runs.random_returns
        known = [float(scale.scores(returns.get(task, math.nan))) for task, scale in self.scales.items()]
        return [] if any(map(math.isnan, known)) else known

    @property
    def random_score(self) -> float:
        """Their mean over tasks; NaN where there are none."""
        return fmean(self.random_scores or [math.nan])

    def random_rows(self, column: str) -> list[dict[str, Any]]:
        """What is known of the random policy's row in a table of scores; none where its score is not."""
        return [{column: self.random_score}] if self.random_scores else []

    def cautions(self, group: Group) -> list[str]:
        """What keeps a group's result from saying much: few seeds, or a random policy that is better."""
        seeds = max(map(len, self.strata(group)))
        few = [f"{count(seeds, 'seed')}: no conclusion"] * (seeds < MIN_SEEDS)
        below = f"below the random policy ({self.random_score:.3g})"
        return [*few, *([below] * (self.mean_scores[group] < self.random_score))]

    @cached_property
    def shown(self) -> list[Group]:
        """The complete groups that figures show: all, or the best `MAX_LINES`, in the study's order."""
        best = sorted(self.complete, key=lambda group: -self.mean_scores[group])[:MAX_LINES]
        return [group for group in self.complete if group in best]

    @cached_property
    def colours(self) -> dict[Group, Any]:
        """The colour of each group that some figure shows."""
        some = {*self.shown, *shown_groups(self.runs)}
        return rank_colours([group for group in self.runs.groups if group in some])

    def left_out(self) -> tuple[str, ...]:
        """Sentences about what figures do not show; none where they show everything."""
        words = [*self.basis()]
        if self.runs.is_population:
            words.append(
                "Members of a population go on from each other's networks: they are no independent runs, and "
                "intervals are too narrow."
            )
        if len(self.complete) > len(self.shown):
            words.append(f"Shown are the {len(self.shown)} best of {len(self.complete)} by mean score.")
        missing = [self.runs.label(group) for group in self.runs.groups if group not in self.complete]
        if missing:
            words.append(f"Left out, because they lack a result on some task: {listed(missing)}.")
        return tuple(words)

    def flops_words(self) -> str:
        """What FLOPs count, in a sentence or two."""
        trials = self.runs.trials
        lacking = int((trials["flops"].notna() & trials["act_flops"].isna()).sum())
        words = "FLOPs count the gradient updates (forward, backward, targets) and the planning of training."
        if lacking:
            words += (
                f" {lacking} of {len(trials)} runs have not logged planning's: theirs are the updates' alone."
            )
        return words

    def scale_words(self) -> str:
        """How results became scores, in a sentence."""
        rules: dict[str, list[str]] = {}
        for task, scale in self.scales.items():
            rules.setdefault(scale.words, []).append(task)
        if len(rules) == 1:
            return f"Score: {next(iter(rules))}."
        return "Score: " + "; ".join(f"{rule} ({', '.join(tasks)})" for rule, tasks in rules.items()) + "."


@contextmanager
def panel(width: float = _PANEL[0], height: float = _PANEL[1]) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one panel in the house style."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
        yield figure, figure.subplots()


def _at_common_step(runs: StudyRuns, trials: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Trials with their results at the last step that all have reached, as `final`; and the step."""
    curves = runs.curves_of(trials).sort_values("env_steps")
    step = int(curves.groupby(["run_id", "task"])["env_steps"].max().min())
    reached = curves[curves["env_steps"] <= step].groupby(["run_id", "task"])["value"].last().rename("final")
    return trials.drop(columns="final").join(reached, on=["run_id", "task"]), step


def listed(names: Sequence[str]) -> str:
    """Names for a sentence, the first of them where they are many."""
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
