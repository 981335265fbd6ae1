"""A study's runs as what laws are fitted to: curves by size, ratio, batch size and learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from tdmpc_ray.studies.results.analysis.section import Evidence
from tdmpc_ray.studies.results.laws.crossings import Curve, crossing, monotone
from tdmpc_ray.studies.results.laws.data_law import Observations
from tdmpc_ray.studies.results.laws.likelihood import Flags
from tdmpc_ray.studies.results.laws.transfer import TUNED, Cell, best_of
from tdmpc_ray.studies.results.scaling import Floats
from tdmpc_ray.studies.results.setting_names import settings, with_defaults
from tdmpc_ray.studies.tracking.kind import StudyKind

RATIO, PARAMETERS = "ratio", "parameters"  # the axes of laws
_RATIO_KEY = "param.data.utd_ratio"
ALL_TASKS = ""  # the mean over tasks
_WHO = ["model_size", "params", "ratio", *TUNED, "seed"]


@dataclass(frozen=True)
class LawRuns:
    """Runs of a study, also those that a scheduler stopped or that go on: they have not got further yet.

    Attributes:
        rows: one per run and task, and with several tasks one per size, setting and seed with the task
            `ALL_TASKS`: run_ids, task, model_size, params, ratio, update.batch_size, update.lr (NaN where the
            study has one), seed, curve (monotone, of scores).
        setting: what all have in common beside these, the best of several; empty where there is one.
        unit: of steps: "agent steps" or "updates".
    """

    rows: pd.DataFrame
    setting: str
    unit: str

    def of(self, task: str) -> LawRuns:
        """Those of one task, or of all together."""
        return replace(self, rows=self.rows[self.rows["task"] == task])

    def where(self, rows: Flags) -> LawRuns:
        """Some of them."""
        return replace(self, rows=self.rows[rows])

    @property
    def start(self) -> float:
        """The largest score that a run begins with, before its first step; -inf where that is not known."""
        begins = [curve.values[0] for curve in self.rows["curve"] if curve.steps[0] == 0]
        return float(max(begins, default=-math.inf))

    @property
    def tasks(self) -> list[str]:
        """All together first, then single ones; only the one where there is one."""
        return sorted(self.rows["task"].unique())

    @property
    def axes(self) -> tuple[str, ...]:
        """What varies, of ratio and parameters."""
        columns = {RATIO: "ratio", PARAMETERS: "params"}
        of_tasks = self.rows.groupby("task")  # whose models have other sizes of observations
        return tuple(axis for axis, column in columns.items() if (of_tasks[column].nunique() > 1).any())

    def places(self) -> Floats:
        """Of the runs on the axes, (R, K)."""
        columns = {RATIO: "ratio", PARAMETERS: "params"}
        return self.rows[[columns[axis] for axis in self.axes]].to_numpy(dtype=float)

    def seen(self, threshold: float) -> Observations:
        """What the runs took to a score."""
        found = [crossing(curve, threshold) for curve in self.rows["curve"]]
        return Observations(
            self.axes,
            self.places(),
            np.array([one.steps for one in found]),
            np.array([one.is_reached for one in found]),
            np.array([curve.steps[-1] for curve in self.rows["curve"]]),
            np.array([one.is_early for one in found]),
        )

    def cells(self, threshold: float) -> list[Cell]:
        """The runs by ratio and parameters, each with its batch size, learning rate and steps."""
        seen = self.seen(threshold)
        cells = []
        for place, rows in self.rows.reset_index(drop=True).groupby(["ratio", "params"]):
            tuned = rows[[*TUNED]].to_numpy(dtype=float)
            cells.append(Cell(place, tuned, seen.steps[rows.index], seen.is_reached[rows.index], rows.index))
        return cells

    def tuned(self, threshold: float) -> LawRuns:
        """Of each ratio and size, the runs with its best batch size and learning rate."""
        if self.rows[[*TUNED]].drop_duplicates().shape[0] < 2:
            return self
        kept = [cell.rows[best_of(cell)[1]] for cell in self.cells(threshold)]
        return replace(self, rows=self.rows.reset_index(drop=True).loc[np.concatenate(kept)])


def law_runs(evidence: Evidence) -> LawRuns | str:
    """The runs of a study, or why no law can be fitted to them."""
    runs = evidence.runs
    if runs.is_population:
        return "members of a population go on from each other's networks"
    trials = runs.trials[runs.trials["final"].notna() & runs.trials["task"].isin(evidence.scales)]
    full = with_defaults(trials)
    tuned = {key: pd.to_numeric(full.get(f"param.{key}"), errors="coerce") for key in TUNED}
    ratio = pd.to_numeric(full.get(_RATIO_KEY, pd.Series(1.0, full.index)), errors="coerce").fillna(1.0)
    of_laws = [_RATIO_KEY, *(f"param.{key}" for key in TUNED)]
    rest = settings(full.drop(columns=[name for name in of_laws if name in full]))
    columns = {"ratio": ratio, **{key: tuned[key] for key in TUNED}, "rest": rest}
    trials = trials.assign(**columns)
    if (trials["params"].fillna(0) <= 0).any():
        return "parameters were not logged for every run"
    setting = _best_setting(trials, evidence)
    trials = trials[trials["rest"] == setting]
    rows = pd.DataFrame(_rows(trials, evidence))
    if not len(rows):
        return "no run has two evaluations"
    if len(evidence.scales) > 1:
        rows = pd.concat([pd.DataFrame(_over_tasks(rows, len(evidence.scales))), rows], ignore_index=True)
    rows["curve"] = [monotone(curve) for curve in rows["curve"]]
    return LawRuns(rows, setting, "updates" if StudyKind.OFFLINE in runs.kind else "agent steps")


def _best_setting(trials: pd.DataFrame, evidence: Evidence) -> str:
    scores = [
        float(evidence.scales[task].scores(final))
        for task, final in zip(trials["task"], trials["final"], strict=True)
    ]
    of_tasks = trials.assign(score=scores).groupby(["rest", "task"])["score"].mean()
    return str(of_tasks.groupby(level="rest").mean().idxmax())


def _rows(trials: pd.DataFrame, evidence: Evidence) -> list[dict[str, object]]:
    curves = dict(list(evidence.runs.curves.groupby(["run_id", "task"])))
    rows = []
    for trial in trials.to_dict("records"):
        task = str(trial["task"])
        own = curves.get((trial["run_id"], task))
        if own is None:
            continue
        own = own.sort_values("env_steps")
        own = own[own["env_steps"] > 0]
        steps = own["env_steps"].to_numpy(dtype=float)
        values = evidence.scales[task].scores(own["value"])
        random = evidence.runs.random_returns.get(task)
        if random is not None:  # what a run begins with
            steps = np.concatenate([[0.0], steps])
            values = np.concatenate([[float(evidence.scales[task].scores(random))], values])
        if len(steps) > 1:
            who = {key: trial[key] for key in _WHO}
            rows.append({**who, "task": task, "run_ids": (trial["run_id"],), "curve": Curve(steps, values)})
    return rows


def _over_tasks(rows: pd.DataFrame, num_tasks: int) -> list[dict[str, object]]:
    """The mean over tasks of each size, setting and seed that has a run on all of them."""
    found = []
    # Models of tasks with more to observe are larger: all of a size count as one.
    mean = rows.groupby("model_size")["params"].transform("mean")
    for who, own in rows.assign(params=mean).groupby(_WHO, dropna=False):
        if own["task"].nunique() < num_tasks:
            continue
        curves: Sequence[Curve] = list(own["curve"])
        steps = np.unique(np.concatenate([curve.steps for curve in curves]))
        first = max(curve.steps[0] for curve in curves)
        last = min(curve.steps[-1] for curve in curves)
        steps = steps[(steps >= first) & (steps <= last)]
        values = np.mean([np.interp(steps, *curve) for curve in curves], axis=0)
        if len(steps) > 1:
            run_ids = tuple(run for ids in own["run_ids"] for run in ids)
            named = dict(zip(_WHO, who, strict=True))
            found.append({**named, "task": ALL_TASKS, "run_ids": run_ids, "curve": Curve(steps, values)})
    return found
