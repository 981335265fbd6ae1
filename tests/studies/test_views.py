"""The charts that stand ready in MLflow, opened in a real browser on a real server."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browsers import chromium
from rich.console import Console
from synthetic import EXPERIMENT, PARAMS, STEPS, log_study, wall_s

from tdmpc_ray.studies.results.aligned_curves import due_steps
from tdmpc_ray.studies.results.compare import compare
from tdmpc_ray.studies.results.costs import with_costs
from tdmpc_ray.studies.results.study_runs import load_study_runs
from tdmpc_ray.studies.results.views import TAG, offer_view, write_view
from tdmpc_ray.studies.tracking.client import connect

SIZES = ("1", "5", "19")


@pytest.fixture
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


def states(uri: str) -> list[dict[str, Any]]:
    tags = connect(uri).get_experiment_by_name(EXPERIMENT).tags
    return [json.loads(value) for name, value in tags.items() if name.startswith(TAG)]


def test_the_link_opens_the_curves(drive: Any, server: Any, browser: Any, tmp_path: Path) -> None:
    log_study(drive, server.uri, tmp_path, "charts", sizes=SIZES, seeds=2, tasks=("walker-walk",))
    output = io.StringIO()
    compare(EXPERIMENT, server.uri, "charts", tmp_path, charts=True, console=Console(file=output, width=200))
    found = re.search(r"charts: (http\S+)", output.getvalue())
    assert found is not None
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(found.group(1))
    page.wait_for_function(
        "document.querySelectorAll('.js-plotly-plot .scatterlayer .trace').length >= 12", timeout=90_000
    )
    text = page.inner_text("body")
    assert "return by model size: charts" in text
    assert "summary/log10_params vs. eval/return" in text
    # A line for each size
    for size in SIZES:
        assert text.count(f"\n{size} (curve/return)") == 3
    drawn = "[...document.querySelectorAll('.js-plotly-plot')].map(plot => plot.data.map(t => [...t.x]))"
    steps, wall, flops, params = page.evaluate(drawn)
    largest = PARAMS["19"]
    ends = (STEPS[-1], wall_s("19", STEPS[-1]), 6 * largest * 256 * STEPS[-1])
    for lines, last in zip((steps, wall, flops), ends, strict=True):
        whole = [line for line in lines if len([x for x in line if x is not None]) == len(STEPS)]
        assert len(whole) >= len(SIZES)
        assert max(max(line) for line in whole) == pytest.approx(last, rel=1e-3)  # the mean of its seeds
    places = sorted({round(x, 2) for line in params for x in line if x is not None})
    assert places == [5.98, 6.72, 7.29]


def test_a_view_says_what_it_shows(drive: Any, store: str, tmp_path: Path) -> None:
    settings = [{"planner.horizon": 1}, {"planner.horizon": 3}]
    for name, tasks in (("one", ("walker-walk",)), ("two", ("walker-walk", "cheetah-run"))):
        log_study(drive, store, tmp_path, name, sizes=("1",), seeds=1, tasks=tasks, settings=settings)
    runs = with_costs(load_study_runs(EXPERIMENT, store, "one"), store)
    path = write_view(runs, store)
    assert write_view(runs, store) == path  # the same tag again
    (state,) = states(store)
    assert re.fullmatch(r"tags.study_uid = 'one-\w+' AND tags.kind = 'trial'", state["searchFilter"])
    names = [key["groupByData"] for key in state["groupBy"]["groupByKeys"]]
    assert names == ["model_size", "planner.horizon"]
    assert [chart["type"] for chart in state["compareRunCharts"]] == ["LINE", "LINE", "LINE", "SCATTER"]
    opened = [section["display"] for section in state["compareRunSections"]]
    assert opened == [True] + [False] * (len(opened) - 1)
    assert "baseline" in [section["name"] for section in state["compareRunSections"]], "the study's own"
    client = connect(store)
    curve = runs.curves[runs.curves["run_id"] == runs.trials["run_id"].iloc[0]]
    for column, metric in (("value", "curve/return"), ("wall_s", "curve/wall_s")):
        logged = {p.step: p.value for p in client.get_metric_history(curve["run_id"].iloc[0], metric)}
        assert logged == pytest.approx(dict(zip(curve["env_steps"], curve[column], strict=True)))
        assert len(logged) == len(STEPS)

    both = load_study_runs(EXPERIMENT, store, ["one", "two"])
    command, address, order = offer_view(both, store).splitlines()
    assert re.fullmatch(r"charts: \S*mlflow ui --backend-store-uri sqlite:\S+\.db", command)
    assert re.fullmatch(r"then open: http://127.0.0.1:5000/#/experiments/\S+CHART", address)
    assert order.startswith(
        "in this order: over agent steps, wall time, FLOPs, parameters (MLflow gives the "
    )
    drawn = [chart["selectedXAxisMetricKey"] for chart in state["compareRunCharts"][:3]]
    assert drawn == ["", "curve/wall_s", "curve/flops"]
    wanted = next(s for s in states(store) if "run_id IN" in s["searchFilter"])
    assert [key["groupByData"] for key in wanted["groupBy"]["groupByKeys"]][:2] == ["model_size", "task"]
    found = client.search_runs([both.experiment_id], wanted["searchFilter"])
    assert {run.info.run_id for run in found} == set(both.trials["run_id"])


def test_late_evaluations_stand_where_they_were_due() -> None:
    late, on_time = [505, 1010, 1940, 2020, 2200], [500, 1000, 1500, 2000, 2200]
    for steps in (late, on_time):  # the last one came out of turn
        assert due_steps(pd.Series(steps), 500).tolist() == [500, 1000, 1500, 2000, 2200]
    assert due_steps(pd.Series([1075, 2075, 3000]), 1000).tolist() == [1000, 2000, 3000]
    assert due_steps(pd.Series([300]), 1000).tolist() == [300]
    turned = due_steps(pd.Series([3000, 1075], index=[7, 8]), 1000)
    assert turned.to_dict() == {7: 3000, 8: 1000}


def test_what_a_view_has_logged_stays_in_place(drive: Any, store: str, tmp_path: Path) -> None:
    log_study(drive, store, tmp_path, "one", sizes=("1",), seeds=2, tasks=("walker-walk",))
    runs = with_costs(load_study_runs(EXPERIMENT, store), store)
    is_early = (runs.curves["env_steps"] <= 3000) & (runs.curves["seed"] == "1")
    early = runs.curves[is_early].assign(env_steps=lambda rows: rows["env_steps"] + 40)
    write_view(replace(runs, curves=early), store)
    write_view(runs, store)
    client = connect(store)
    costs = [
        {p.step: p.value for p in client.get_metric_history(run_id, "curve/wall_s")}
        for run_id in runs.trials["run_id"]
    ]
    assert costs[0] == costs[1]  # the seed that came later takes the costs that stood there
    assert list(costs[0]) == list(STEPS), "at the steps that were due, which the study has said"


def test_a_view_that_cannot_be_written_is_no_failure(drive: Any, store: str, tmp_path: Path) -> None:
    log_study(drive, store, tmp_path, "one", sizes=("1",), seeds=1, tasks=("walker-walk",))
    runs = load_study_runs(EXPERIMENT, store)
    assert offer_view(runs, "http://127.0.0.1:9") == "no charts in MLflow: connection refused"
