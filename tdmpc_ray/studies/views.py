"""Charts of a study that stand ready in MLflow's own pages: curves and return over parameters, by size.

MLflow keeps a shared view of an experiment's charts as JSON in one of its tags, which a link opens. Its form
is not documented: this is that of MLflow 3.17, which a test opens in a browser.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.mlflow_client import absolute_uri, connect, one_line
from tdmpc_ray.studies.mlflow_find import all_runs
from tdmpc_ray.studies.setting_names import varying
from tdmpc_ray.studies.study_costs import with_costs
from tdmpc_ray.studies.study_run import now_ms
from tdmpc_ray.studies.study_runs import StudyRuns

TAG = "mlflow.sharedViewState."
UI_ADDRESS = "http://127.0.0.1:5000"  # of `mlflow ui` where it is not told another one
LOG_PARAMS = "summary/log10_params"  # MLflow ignores a logarithmic axis of a metric
_COSTS = {"wall_s": "curve/wall_s", "train_flops": "curve/train_flops"}  # column of `curves` to metric

_MAX_TAG = 20_000  # characters that MLflow shares
_MAX_GROUPS = 20  # lines that a chart can show
_SECTION = "tdmpc-ray"
_BATCH = 1000  # metrics that MLflow takes at once


def offer_view(runs: StudyRuns, uri: str) -> str:
    """Write the view of studies and say how to open it, or why there is none.

    Args:
        runs: the studies.
        uri: address of MLflow.

    Returns:
        A line for the user.
    """
    try:
        path = write_view(with_costs(runs, uri), uri)
    except Exception as error:  # MLflow may be there to be read alone: no reason to end a command
        return f"no charts in MLflow: {one_line(error)}"
    if uri.startswith("http"):
        return f"charts: {uri.rstrip('/')}{path}"
    from tdmpc_ray.studies.outcome import mlflow_command  # late: it imports Ray

    return f"charts: {mlflow_command(uri)}, then open {UI_ADDRESS}{path}"


def write_view(runs: StudyRuns, uri: str) -> str:
    """Write the view of studies into their experiment; again, to bring it up to date.

    MLflow averages seeds, and joins results with what they cost, by step, of which it samples few. So each
    evaluation is logged to its trial once more, as `curve/...`, at the step that it was due at, with the wall
    time and the FLOPs that it took the seeds on average.

    Args:
        runs: the studies, with costs (see `with_costs`).
        uri: address of MLflow.

    Returns:
        The path of its link, behind the address of MLflow.

    Raises:
        UserError: more trials than a view can name.
    """
    client = connect(absolute_uri(uri))
    every = runs.curves.assign(due=nominal_steps(runs.curves))
    for _, curves in every.groupby(["task", "model_size", "setting"]):
        _log_curves(client, curves, curve_metric(runs.metric))
    uids = sorted(client.get_run(parent).data.tags["study_uid"] for parent in runs.parent_run_ids)
    wanted = _filter(runs, uids)
    logged = {name for run in all_runs(client, runs.experiment_id, wanted) for name in run.data.metrics}
    state = json.dumps(view_state(runs, wanted, logged), separators=(",", ":"))
    if len(state) > _MAX_TAG:
        raise UserError(f"{len(runs.trials)} trials are too many for one view of charts: show fewer studies")
    key = "tdmpc-ray-" + hashlib.sha256(" ".join([*uids, runs.metric]).encode()).hexdigest()[:12]
    client.set_experiment_tag(runs.experiment_id, TAG + key, state)
    return f"/#/experiments/{runs.experiment_id}/runs?viewStateShareKey={key}&compareRunsMode=CHART"


def view_state(runs: StudyRuns, wanted: str, logged: Iterable[str]) -> dict[str, Any]:
    """The state of MLflow's page of runs: which ones, in what groups, in which charts.

    Args:
        runs: the studies.
        wanted: filter of the trials.
        logged: the metrics that they have: their own charts are folded away below.
    """
    metric = curve_metric(runs.metric)
    what = metric.removeprefix("curve/")
    charts = [
        _line("steps", metric),
        _line("wall", metric, _COSTS["wall_s"]),
        _line("flops", metric, _COSTS["train_flops"]),
        {
            **_chart("params", "SCATTER"),
            "xaxis": {"key": LOG_PARAMS, "type": "METRIC"},
            "yaxis": {"key": runs.metric, "type": "METRIC"},
        },
    ]
    folded = sorted({name.rpartition("/")[0] or "Model metrics" for name in logged})
    return {
        "searchFilter": wanted,
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "param", "groupByData": name} for name in _group_by(runs)],
        },
        "useGroupedValuesInCharts": True,
        "runsHiddenMode": "SHOW_ALL",
        "hideEmptyCharts": True,
        "runListHidden": True,
        "isAccordionReordered": True,  # else sections are sorted by name
        "compareRunCharts": charts,
        "compareRunSections": [
            _section(_SECTION, f"{what} by model size: {runs.study}", is_open=True),
            *(_section(name, name, is_open=False) for name in folded),
        ],
    }


def curve_metric(metric: str) -> str:
    """`eval/return` as `curve/return`: see `write_view`."""
    return f"curve/{metric.removeprefix('eval/')}"


def _group_by(runs: StudyRuns) -> list[str]:
    """Parameters that make the lines: size, task, and what else the study varies while that is little."""
    trials = runs.trials
    tasks = ["task"] if len(runs.tasks) > 1 else []
    settings = [name.removeprefix("param.") for name in varying(trials)]
    few = len(runs.groups) * len(runs.tasks) <= _MAX_GROUPS
    return ["model_size", *tasks, *(settings if few else [])]


def _filter(runs: StudyRuns, uids: list[str]) -> str:
    """The trials alone: their parents would hide them, folded."""
    if len(uids) == 1:
        return f"tags.study_uid = '{uids[0]}' AND tags.kind = 'trial'"
    names = ",".join(f"'{run_id}'" for run_id in runs.trials["run_id"])
    return f"attributes.run_id IN ({names})"


def _chart(key: str, kind: str) -> dict[str, Any]:
    return {
        "uuid": f"{_SECTION}-{key}",
        "type": kind,
        "metricSectionId": _SECTION,
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
    }


def _line(key: str, metric: str, over: str | None = None) -> dict[str, Any]:
    """A line chart over steps, or over a metric."""
    return {
        **_chart(key, "LINE"),
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisKey": "metric" if over else "step",
        "selectedXAxisMetricKey": over or "",
        "useGlobalXaxisKey": False,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "lineSmoothness": 0,
        "useGlobalLineSmoothing": False,
        "displayPoints": True,
        "ignoreOutliers": False,
        "range": {},
    }


def _section(key: str, name: str, *, is_open: bool) -> dict[str, Any]:
    return {
        "uuid": key,
        "name": name,
        "display": is_open,
        "isReordered": False,
        "deleted": False,
        "isGenerated": not is_open,
        "columns": 2 if is_open else 3,
        "cardHeight": 360,
    }


def nominal_steps(curves: pd.DataFrame) -> pd.Series:
    """The step that each evaluation was due at, the same for all seeds: they are made some steps late.

    Multiples of their spacing; the own step where none is near, as for a last evaluation out of turn.
    """
    ordered = [curve.sort_values("env_steps")["env_steps"] for _, curve in curves.groupby("run_id")]
    spacings = [steps.iloc[-2] / (len(steps) - 1) for steps in ordered if len(steps) > 1]
    steps = curves["env_steps"]
    if not spacings:
        return steps
    spacing = float(f"{min(spacings):.3g}")  # of those that are least late
    due = (steps / spacing).round() * spacing
    return due.where((steps - due).abs() <= spacing / 4, steps).round().astype(int)


def _log_curves(client: Any, curves: pd.DataFrame, metric: str) -> None:
    """Log the evaluations of a group's seeds at the steps they were `due` at, with what they cost on average.

    The cost of a step is the mean over the seeds that had got there when it was logged first: MLflow would
    draw seeds of different costs as one line that goes back and forth.
    """
    names = [metric, *_COSTS.values()]
    logged = {run_id: _logged(client, run_id, names) for run_id in curves["run_id"].unique()}
    curves = curves.copy()
    for column, name in _COSTS.items():
        means = curves.groupby("due")[column].mean()
        known = {step: cost for histories in logged.values() for step, cost in histories[name].items()}
        curves[column] = curves["due"].map({**means, **known})
    for run_id, curve in curves.groupby("run_id"):
        points = [
            _metric(name, value, step)
            for column, name in {"value": metric, **_COSTS}.items()
            for step, value in zip(curve["due"], curve[column], strict=True)
            if step not in logged[run_id][name] and np.isfinite(value)
        ]
        for first in range(0, len(points), _BATCH):
            client.log_batch(run_id, metrics=points[first : first + _BATCH])


def _logged(client: Any, run_id: str, names: Iterable[str]) -> dict[str, dict[int, float]]:
    """Metrics to their values by step."""
    return {name: {p.step: p.value for p in client.get_metric_history(run_id, name)} for name in names}


def _metric(name: str, value: float, step: int) -> Any:
    from mlflow.entities import Metric

    return Metric(name, float(value), now_ms(), int(step))
