"""Charts of a study that stand ready in MLflow's own pages: curves and return over parameters, by size.

MLflow keeps a shared view of an experiment's charts as JSON in one of its tags, which a link opens. Its form
is not documented: this is that of MLflow 3.17, which a test opens in a browser.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.results.aligned_curves import COSTS, curve_metric, log_aligned
from tdmpc_ray.studies.results.costs import with_costs
from tdmpc_ray.studies.results.setting_names import varying
from tdmpc_ray.studies.results.study_runs import StudyRuns
from tdmpc_ray.studies.tracking.client import absolute_uri, connect, one_line, web_address
from tdmpc_ray.studies.tracking.find import all_runs
from tdmpc_ray.studies.words import mlflow_command

TAG = "mlflow.sharedViewState."
UI_ADDRESS = "http://127.0.0.1:5000"  # of `mlflow ui` where it is not told another one
LOG_PARAMS = "summary/log10_params"  # MLflow ignores a logarithmic axis of a metric

_MAX_TAG = 20_000  # characters that MLflow shares
_MAX_GROUPS = 20  # lines that a chart can show
_SECTION = "tdmpc-ray"
_ORDER = (
    "in this order: over agent steps, wall time, FLOPs, parameters (MLflow gives the first three the same "
    "title, and its legends a group 'Unassigned' without runs)"
)


def offer_view(runs: StudyRuns, uri: str) -> str:
    """Write the view of studies and say how to open it, or why there is none.

    Args:
        runs: the studies.
        uri: address of MLflow.

    Returns:
        What to tell the user; a command or an address ends its line.
    """
    from mlflow.exceptions import MlflowException

    try:
        path = write_view(with_costs(runs, uri), uri)
    except (MlflowException, OSError, UserError) as error:  # maybe MLflow is there to be read alone
        return f"no charts in MLflow: {one_line(error)}"
    return _how_to_open(uri, path)


def find_view(runs: StudyRuns, uri: str) -> str:
    """Say how to open the view of studies, or how to have one; writes nothing."""
    from mlflow.exceptions import MlflowException

    client = connect(absolute_uri(uri))
    try:
        key = _key(runs, [client.get_run(run_id) for run_id in runs.parent_run_ids])
        tags = client.get_experiment(runs.experiment_id).tags
    except (MlflowException, OSError) as error:
        return f"no charts in MLflow: {one_line(error)}"
    if TAG + key not in tags:
        return "charts: MLflow has no charts of these studies together yet, --charts writes them"
    return _how_to_open(uri, _path(runs, key))


def write_view(runs: StudyRuns, uri: str) -> str:
    """Write the view of studies into their experiment; again, to bring it up to date.

    Args:
        runs: the studies, with costs (see `with_costs`).
        uri: address of MLflow.

    Returns:
        The path of its link, behind the address of MLflow.

    Raises:
        UserError: more trials than a view can name.
    """
    client = connect(absolute_uri(uri))
    parents = [client.get_run(run_id) for run_id in runs.parent_run_ids]
    log_aligned(client, runs, parents)
    uids = sorted(parent.data.tags["study_uid"] for parent in parents)
    wanted = _filter(runs, uids)
    shown = [*all_runs(client, runs.experiment_id, wanted), *parents]  # theirs have charts there, too
    logged = {name for run in shown for name in run.data.metrics}
    state = json.dumps(view_state(runs, wanted, logged), separators=(",", ":"))
    if len(state) > _MAX_TAG:
        raise UserError(f"{len(runs.trials)} trials are too many for one view of charts: show fewer studies")
    key = _key(runs, parents)
    client.set_experiment_tag(runs.experiment_id, TAG + key, state)
    return _path(runs, key)


def _key(runs: StudyRuns, parents: list[Any]) -> str:
    """Of the view, from the studies and the metric that it shows."""
    uids = sorted(parent.data.tags["study_uid"] for parent in parents)
    return "tdmpc-ray-" + hashlib.sha256(" ".join([*uids, runs.metric]).encode()).hexdigest()[:12]


def _path(runs: StudyRuns, key: str) -> str:
    return f"/#/experiments/{runs.experiment_id}/runs?viewStateShareKey={key}&compareRunsMode=CHART"


def _how_to_open(uri: str, path: str) -> str:
    if server := web_address(uri):
        return f"charts: {server}{path}\n{_ORDER}"
    return f"charts: {mlflow_command(uri)}\nthen open: {UI_ADDRESS}{path}\n{_ORDER}"


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
        _line("wall", metric, COSTS["wall_s"]),
        _line("flops", metric, COSTS["flops"]),
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


def _group_by(runs: StudyRuns) -> list[str]:
    """Parameters that make the lines: size, task, and what else the study varies while that is little."""
    trials = runs.trials
    tasks = ["task"] if len(runs.tasks) > 1 else []
    settings = [] if runs.is_population else [name.removeprefix("param.") for name in varying(trials)]
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
