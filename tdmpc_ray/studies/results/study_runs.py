"""A study's runs read back from MLflow as tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import product
from operator import or_
from typing import Any

import pandas as pd

from tdmpc_ray.core.agents import NAMES, find_settings
from tdmpc_ray.envs.catalog import common_metric, task_info
from tdmpc_ray.errors import UserError, nearest
from tdmpc_ray.studies.results.histories import read_histories
from tdmpc_ray.studies.results.setting_names import natural, settings, told_apart, with_defaults
from tdmpc_ray.studies.results.task_sets import shares
from tdmpc_ray.studies.results.trial_rows import curve_of, embeddings_of, points_of, row_of
from tdmpc_ray.studies.tracking.client import absolute_uri, check_tracking, connect, one_line, sqlite_path
from tdmpc_ray.studies.tracking.find import all_runs, find_experiment, find_study
from tdmpc_ray.studies.tracking.kind import KIND_TAG, StudyKind
from tdmpc_ray.studies.tracking.naming import metric_name
from tdmpc_ray.studies.tracking.study_run import FAILURE, RANDOM_RETURN

MOVED = "hp/"  # metrics of settings that a scheduler has changed
_MOST_CHARS = 60  # of a file's name; a character takes up to four bytes
CHANGES = ["run_id", "setting", "step", "value"]
VALIDATION = ["run_id", "metric", "step", "value"]
EMBEDDINGS = ["run_id", "task", "x", "y", "shown"]
Group = tuple[str, str]  # model size and setting


@dataclass(frozen=True)
class StudyRuns:
    """One study, or several together, as they stand in MLflow.

    Attributes:
        study: its name, or theirs.
        trials: one row per trial: run_id, name, status, task, model_size, setting, seed, params, parts,
            env_steps, stopped_early (when a scheduler did so; else empty), hours, steps_taken (by the trial
            itself, whatever checkpoint it went on from, as all that it spent), steps_per_s, train_flops
            (of all updates), act_flops (of all planning) and their sum flops, sim_hours (of the environments'
            steps), energy_kwh (NaN if not logged), final, best (both of `metric`), and every parameter as
            `param.<name>`. A trial of a set of tasks has a row for each of its tasks that other trials learn
            alone, each with its share of steps, hours and operations, which `parts` tasks have had. The
            setting is what the study varies beside size and seed, such as `horizon=3`; empty where nothing.
        curves: one row per evaluation: run_id, task, model_size, setting, seed, env_steps, env_frames, value,
            step (MLflow's: agent steps of all tasks).
        random_returns: task to the random policy's return, as far as known.
        metric: the metric that `value`, `final` and `best` are of.
        experiment_id: MLflow's; empty for tables from elsewhere.
        kind: what is special about the trials of any of the studies.
        moved: metrics of the settings that a population has changed.
        embeddings: a row per task of each run that has learned several, see `task_map`: run_id, task, x, y,
            shown.
        validation: with costs, losses on episodes kept from training (`td_error`) and on others
            (`seen_td_error`): run_id, metric, step, value.
        changes: with costs (see `with_costs`), a row per change of these: run_id, setting, step, value.
    """

    experiment: str
    study: str
    parent_run_ids: tuple[str, ...]
    trials: pd.DataFrame
    curves: pd.DataFrame
    random_returns: dict[str, float]
    metric: str
    experiment_id: str = ""
    kind: StudyKind = StudyKind.PLAIN
    moved: tuple[str, ...] = ()
    changes: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=CHANGES))
    validation: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=VALIDATION))
    embeddings: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=EMBEDDINGS))

    @property
    def file_name(self) -> str:
        """Their names without what file names should not have, no longer than file systems take."""
        return re.sub(r"[^\w.-]", "_", self.study)[:_MOST_CHARS]

    @property
    def is_population(self) -> bool:
        """Whether trials go on from each other's networks."""
        return StudyKind.POPULATION in self.kind

    @property
    def sizes(self) -> list[str]:
        """Model sizes, small to large."""
        return sort_sizes(self.trials)

    @property
    def settings(self) -> list[str]:
        """What the study varies beside size and seed, numbers in order; one empty string where nothing."""
        return sorted(self.trials["setting"].unique(), key=natural)

    @property
    def tasks(self) -> list[str]:
        """Tasks, by name."""
        return sorted(self.trials["task"].unique())

    @property
    def groups(self) -> list[Group]:
        """Pairs of model size and setting that have trials, sizes first."""
        present = set(zip(self.trials["model_size"], self.trials["setting"], strict=True))
        return [group for group in product(self.sizes, self.settings) if group in present]

    def random_rows(self, column: str) -> list[dict[str, Any]]:
        """What is known of the random policy's rows in a table of results: its return on each task."""
        return [{"task": task, column: value} for task, value in self.random_returns.items()]

    def label(self, group: Group) -> str:
        """What tells a group from the others, in words."""
        size, setting = group
        words = [f"size {size}"] if len(self.sizes) > 1 or not setting else []
        return ", ".join([*words, *([setting] if setting else [])])

    def frames_per_step(self, task: str) -> int:
        """Environment frames per agent step of a task."""
        own = self.curves[(self.curves["task"] == task) & (self.curves["env_steps"] > 0)]
        return round((own["env_frames"] / own["env_steps"]).max()) if len(own) else 1

    def curves_of(self, trials: pd.DataFrame) -> pd.DataFrame:
        """The evaluations of some of the trials."""
        return self.curves.merge(trials[["run_id", "task"]], on=["run_id", "task"])

    def of(self, task: str, model_size: str, setting: str) -> pd.DataFrame:
        """The trials of one task, model size and setting."""
        trials = self.trials
        here = (trials["task"] == task) & (trials["model_size"] == model_size)
        return trials[here & (trials["setting"] == setting)]


def load_study_runs(
    experiment: str, uri: str, study: str | Sequence[str] | None = None, *, metric: str | None = None
) -> StudyRuns:
    """Read the trials of a study, or of several, and their evaluation curves.

    Args:
        experiment: name of the MLflow experiment.
        uri: address of MLflow.
        study: name or run id of the study, or of several; None: the newest one.
        metric: which metric to read the curves of; None: the one that the tasks are judged by.

    Raises:
        UserError: MLflow does not answer, or has no such experiment or study, or no trial has an evaluation.
    """
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        raise UserError(
            f"no MLflow database at {path}: run a study first, or give the address of another one"
        )
    check_tracking(uri)
    client = connect(absolute_uri(uri))
    try:
        experiment_id = find_experiment(client, experiment)
        wanted = [study] if study is None or isinstance(study, str) else study
        parents = [find_study(client, experiment, experiment_id, name) for name in wanted]
        once = {parent.info.run_id: parent for parent in parents}  # named twice, it counts once
        return _read(client, experiment, experiment_id, list(once.values()), metric)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"reading from MLflow failed ({one_line(error)}): check the server and try again"
        ) from error


def counted(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that are shown: of a task, size and setting the whole ones; where none is, the evaluated.

    Sections that compare are stricter, see `Evidence`.
    """
    evaluated = trials["final"].notna()
    whole = evaluated & is_whole(trials)
    has_whole = whole.groupby([trials[name] for name in ("task", "model_size", "setting")]).transform("any")
    return trials[whole.where(has_whole, evaluated)]


def is_whole(trials: pd.DataFrame) -> pd.Series:
    """Whether each trial went to its end, or as far as the study's `stop` wanted it."""
    return (trials["status"] == "FINISHED") & (trials["stopped_early"] == "")


def sort_sizes(trials: pd.DataFrame) -> list[str]:
    """Model sizes of a table of trials in the order of the published sizes, unknown ones by parameters."""
    known = [size for name in NAMES for size in find_settings(name).sizes]
    params = trials.groupby("model_size")["params"].max()
    return sorted(
        params.index,
        key=lambda size: (known.index(size) if size in known else len(known), params[size], size),
    )


def _read(
    client: Any, experiment: str, experiment_id: str, parents: Sequence[Any], metric: str | None
) -> StudyRuns:
    filters = [f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'" for parent in parents]
    found = [run for of_study in filters for run in all_runs(client, experiment_id, of_study)]
    name = ", ".join(parent.info.run_name for parent in parents)
    tasks = {run.data.params.get("task", "task") for run in found}
    if metric is not None:
        _require(metric, name, found)
    metric = metric or _metric(tasks)
    rows: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    shown = [
        (run, share) for run in found for share in shares(run.data.params.get("task", "task"), tasks, metric)
    ]
    has_shares = any(share.parts > 1 for _, share in shown)
    histories = {
        metric: read_histories(
            client, [run.info.run_id for run, share in shown if share.metric == metric], metric
        )
        for metric in dict.fromkeys(share.metric for _, share in shown)
    }
    for run, share in shown:
        curve = curve_of(histories[share.metric].get(run.info.run_id, ()))
        points += points_of(run, share, curve)
        rows.append(row_of(run, share, curve))
        if has_shares:
            rows[-1]["param.tasks"] = str(share.parts)
    if not points:
        raise UserError(f"study '{name}' has no '{metric}' {_why_none(parents, found)}")
    trials = pd.DataFrame(rows)
    kinds = {parent.info.run_id: StudyKind.parse(parent.data.tags.get(KIND_TAG, "")) for parent in parents}
    trials["setting"] = _settings(trials, kinds)
    trials["setting"] = told_apart(trials, {parent.info.run_id: parent for parent in parents})
    curves = pd.DataFrame(points).merge(trials[["run_id", "task", "setting"]], on=["run_id", "task"])
    curves = curves.sort_values(["model_size", "setting", "seed", "env_steps"], ignore_index=True)
    return StudyRuns(
        experiment=experiment,
        study=name,
        parent_run_ids=tuple(parent.info.run_id for parent in parents),
        trials=trials,
        curves=curves,
        random_returns=_random_returns(parents, trials) if metric == "eval/return" else {},
        metric=metric,
        experiment_id=experiment_id,
        kind=reduce(or_, kinds.values()),
        embeddings=pd.DataFrame([row for run in found for row in embeddings_of(run)], columns=EMBEDDINGS),
        moved=tuple(sorted({name for run in found for name in run.data.metrics if name.startswith(MOVED)})),
    )


def _require(metric: str, study: str, found: Sequence[Any]) -> None:
    """Refuse a metric that no trial has; of an evaluation only where there has been one."""
    known = {name for run in found for name in run.data.metrics}
    is_early = metric.startswith("eval/") and not any(name.startswith("eval/") for name in known)
    if metric not in known and not is_early:
        best = nearest(metric, known)
        there = ", ".join(sorted(known, key=lambda name: (not name.startswith("eval/"), name)))
        hint = f": did you mean '{best}'?" if best else ""
        raise UserError(f"study '{study}' has no metric '{metric}'{hint}; there are: {there}")


def _why_none(parents: Sequence[Any], found: Sequence[Any]) -> str:
    """What keeps trials from having a result: nobody waits for one that cannot come."""
    trials = f"in {len(found)} trials"
    if any(run.info.status == "RUNNING" for run in [*parents, *found]):
        return f"{trials} yet: wait for one"
    failed = [run for run in found if run.info.status == "FAILED"]
    if not failed:
        return f"{trials}, which ended before the first evaluation: resume it"
    reasons = dict.fromkeys(reason for run in failed if (reason := run.data.tags.get(FAILURE)))
    why = f": {next(iter(reasons))}" if reasons else ""
    return f"{trials}, of which {len(failed)} failed before the first evaluation{why}"


def _settings(trials: pd.DataFrame, kinds: dict[str, StudyKind]) -> pd.Series:
    """What tells trials apart; members of a population move on from what they began with."""
    is_member = trials["parent"].map(lambda parent: StudyKind.POPULATION in kinds[parent])
    if is_member.all():
        return pd.Series("", index=trials.index)
    words = settings(with_defaults(trials[~is_member])).reindex(trials.index)
    return words.where(~is_member, "population")


def _metric(tasks: set[str]) -> str:
    """What all tasks are judged by."""
    try:
        return f"eval/{common_metric([task_info(task) for task in sorted(tasks)])}"
    except UserError:  # a task of somebody else's
        return "eval/return"


def _random_returns(parents: Sequence[Any], trials: pd.DataFrame) -> dict[str, float]:
    """`baseline/random_return` of a study with a single task, `baseline/random_return/<task>` of others."""
    found = {}
    for parent in parents:
        metrics = parent.data.metrics
        tasks = trials[trials["parent"] == parent.info.run_id]["task"].unique()
        for task in tasks:
            alone = metrics.get(RANDOM_RETURN) if len(tasks) == 1 else None
            value = metrics.get(metric_name(f"{RANDOM_RETURN}/{task}"), alone)
            if value is not None:
                found[task] = value
    return found
