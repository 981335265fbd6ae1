"""The page of `tdmpc-ray report`, from a real MLflow, opened in a real browser."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from browsers import chromium
from report_lab import runs_of
from synthetic import EXPERIMENT, EXPONENT, PARAMS, STEPS, final_gap

from tdmpc_ray import cli
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.results.analysis.build import Report, build_report
from tdmpc_ray.studies.results.analysis.comparison import aggregates
from tdmpc_ray.studies.results.analysis.cost import throughput
from tdmpc_ray.studies.results.analysis.frontier import frontier, frontier_law
from tdmpc_ray.studies.results.analysis.results import summary_table
from tdmpc_ray.studies.results.analysis.search import parallel_coordinates
from tdmpc_ray.studies.results.analysis.section import Evidence
from tdmpc_ray.studies.results.analysis.sizes import _picture, scaling_law, size_results
from tdmpc_ray.studies.results.compare import render_table
from tdmpc_ray.studies.results.page import write_report
from tdmpc_ray.studies.results.scaling import ANY, Interval, PowerLaw
from tdmpc_ray.studies.results.statistics import result_bounds
from tdmpc_ray.studies.results.study_runs import load_study_runs
from tdmpc_ray.studies.tracking.client import connect


def absences(report: Report) -> dict[str, str]:
    return {section.key: section.absent for section in report.sections if section.absent}


def test_the_page_in_a_browser(lab: SimpleNamespace, tmp_path: Path) -> None:
    page_file = write_report(EXPERIMENT, lab.uri, "sizes", tmp_path / "out")
    complaints: list[str] = []
    with chromium() as browser:
        for width in (1280, 390):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda request: complaints.append(f"asked for {request.url}"))
            page.goto(page_file.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") == width
            boxes = page.evaluate(
                "[...document.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect().toJSON())"
            )
            assert len(boxes) == 8 + 2 + 3 + 1 + 1 + 1 + 1 + 2
            for box in boxes:
                assert box["height"] > 80
                assert 250 < box["width"] <= width
                assert 0 <= box["left"] < box["right"] <= width
            cells = page.evaluate(
                "[...document.querySelectorAll('#scaling tbody tr')]"
                ".map(row => [...row.cells].map(cell => cell.innerText))"
            )
        names = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(names) == len(set(names))
    assert set(complaints) <= {f"asked for {page_file.as_uri()}", "asked for data:,"}
    table = pd.read_csv(tmp_path / "out" / "tables" / "scaling.csv")
    assert len(cells) == len(table) == len(PARAMS) + 1
    assert [word for word in cells[-1] if word != "n/a"] == ["random policy", "0", "0.039", ""]
    for shown, row in zip(cells[:-1], table[:-1].itertuples(), strict=True):
        assert shown[0] == str(row.model_size)
        numbers = [float(text.replace(",", "")) for text in shown[1:-1]]
        known = [row.params, row.flops_per_run, row.seeds, row.mean_score, row.low, row.high]
        assert numbers == pytest.approx(known, rel=1e-3)
        assert shown[-1].split() == [run_id[:8] for run_id in row.run_ids.split()]
        assert row.mean_score == pytest.approx(1 - final_gap(str(row.model_size)), rel=0.05)
    text = page_file.read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", text)
    assert {file.suffix for file in (tmp_path / "out" / "figures").iterdir()} == {".png", ".svg"}


def test_the_command_writes_the_report_and_attaches_it(
    lab: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("not a part of it")
    args = ["--study", "alone", "--mlflow-uri", lab.uri, "--out", str(tmp_path), "--metric", "eval/return"]
    assert cli.main(["report", EXPERIMENT, *args]) == 0
    assert f"report: {tmp_path}/report.html\nlogged to the study's run" in capsys.readouterr().out
    (parent,) = load_study_runs(EXPERIMENT, lab.uri, "alone").parent_run_ids
    client = connect(lab.uri)
    assert {item.path for item in client.list_artifacts(parent, "report")} == {
        "report/figures",
        "report/report.html",
        "report/tables",
    }


def test_one_run_supports_little_and_the_report_says_so(lab: SimpleNamespace) -> None:
    absent = absences(build_report(runs_of(lab, "alone")))
    assert set(absent) == {
        "scaling",
        "data",
        "laws",
        "budget",
        "validation",
        "iqm",
        "profiles",
        "improvement",
        "search",
        "importance",
        "frontier",
        "throughput",
    }
    assert "one seed" in absent["iqm"]
    assert "one model size" in absent["scaling"]
    assert "resources.num_env_runners" in absent["throughput"]


def test_the_law_is_found_again_over_parameters_and_flops(lab: SimpleNamespace) -> None:
    evidence = Evidence(runs_of(lab, "sizes"))
    results = size_results(evidence)
    assert [len(result.values) for result in results] == [3] * len(PARAMS)
    for law in (scaling_law(evidence, results), frontier_law(evidence)):
        assert isinstance(law, PowerLaw)
        low, high = law.intervals["b"]
        assert low <= EXPONENT <= high
        assert law.identifiable
    few = scaling_law(evidence, results[:3])
    assert few == "3 model sizes cannot identify its three parameters, at least 4 are needed"


def test_the_frontier_goes_from_small_to_large(lab: SimpleNamespace) -> None:
    table = frontier(Evidence(runs_of(lab, "sizes"))).table
    assert table is not None
    walker = table[table["task"] == "walker-walk"]
    assert walker["model_size"].tolist() == ["random policy", *PARAMS]
    assert walker["reaches"].is_monotonic_increasing
    assert (walker["from_flops"].to_numpy()[1:] > walker["to_flops"].to_numpy()[:-1]).all()
    assert walker["to_flops"].iloc[-1] == pytest.approx(6 * PARAMS["317"] * 256 * STEPS[-1])


def test_a_best_that_is_below_the_random_policy_or_of_two_seeds_is_no_conclusion(
    lab: SimpleNamespace,
) -> None:
    runs = runs_of(lab, "workers")
    assert re.search(r"; 2 seeds: no conclusion$", dict(build_report(runs).facts)["best"])
    assert aggregates(Evidence(runs)).table["conclusion"].tolist() == [  # type: ignore[index]
        "2 seeds: no conclusion",
        "2 seeds: no conclusion",
        "",
    ]
    worse = replace(runs_of(lab, "sizes"), random_returns={"walker-walk": 990.0, "cheetah-run": 985.0})
    best = dict(build_report(worse).facts)["best"]
    assert re.search(r"\(95% interval .*\); below the random policy \(0\.988\)$", best)
    assert "below the random policy: 10 of 10 rows" in str(render_table(worse).caption)
    assert "; 1 seed: no conclusion" in dict(build_report(runs_of(lab, "alone")).facts)["result"]


def test_the_random_policy_stands_in_every_table_of_results(lab: SimpleNamespace) -> None:
    tables = {section.key: section.table for section in build_report(runs_of(lab, "sizes")).sections}
    searched = parallel_coordinates(Evidence(runs_of(lab, "planners"))).table
    found = {}
    columns = {"results": "final", "scaling": "mean_score", "iqm": "mean", "runs": "final"}
    columns |= {"frontier": "reaches", "costs": "final", "profiles": "share_of_runs"}
    columns |= {"search": "score", "improvement": "p_x_beats_y"}
    for key, column in columns.items():
        table = tables[key] if key != "search" else searched
        assert table is not None
        label = {"runs": "name", "improvement": "y"}.get(key, "model_size")
        rows = table[table[label] == "random policy"]
        assert rows["run_ids"].tolist() == [()] * len(rows) or key == "improvement"
        found[key] = rows[column].tolist()
    assert found == {
        "results": [39.0] * 2,
        "scaling": [0.039],
        "iqm": [0.039],
        "runs": [39.0] * 2,
        "frontier": [39.0] * 2,
        "costs": [39.0] * 2,
        "profiles": [1.0] + [0.0] * 10,
        "search": [0.039],
        "improvement": [1.0] * 5,
    }
    costs = tables["costs"]
    assert costs is not None
    assert costs["model_size"].tolist() == [*PARAMS, "random policy", *PARAMS, "random policy", ""]
    assert costs["final"].iloc[0] == pytest.approx(1000 * (1 - final_gap("1")), rel=0.05)


def test_intervals_end_where_returns_end(lab: SimpleNamespace) -> None:
    runs = runs_of(lab, "workers")
    curves = runs.curves.copy()
    curves.loc[curves["seed"] == "0", "value"] = 990.0
    curves.loc[curves["seed"] == "1", "value"] = 10.0
    trials = runs.trials.assign(final=runs.trials["seed"].map({"0": 990.0, "1": 10.0}))
    apart = replace(runs, curves=curves, trials=trials)
    table = Evidence(apart)
    section = build_report(apart).sections[0]
    assert section.table is not None
    assert section.table.equals(summary_table(apart))
    ends = section.table[["low", "high"]].dropna()
    assert len(table.complete) == len(ends) == 2
    assert (ends == [0.0, 1000.0]).all(axis=None)
    drawn = section.pictures[0].figure.axes[0].collections
    bands = [path.vertices[:, 1] for band in drawn for path in band.get_paths()]
    assert {(band.min(), band.max()) for band in bands} == {(0.0, 1000.0)}
    wide = PowerLaw(5e3, 0.5, 0.01, {}, True, "", np.log([[5e3, 0.5, 0.01]] * 2))
    results = size_results(Evidence(runs_of(lab, "sizes")))
    figure = _picture(results, "params", wide, True, Interval(0.0, 1.0)).figure
    (band,) = figure.axes[0].collections[0].get_paths()
    assert band.vertices[:, 1].max() == 1.0, "of a gap to the best possible score"
    assert result_bounds("walker-walk", "eval/return_min") == (0.0, 1000.0)
    slow = apart.trials.assign(steps_per_s=apart.trials["seed"].map({"0": 50.0, "1": 1.0}))
    assert (throughput(Evidence(replace(apart, trials=slow))).table["low"] == 0.0).all()  # type: ignore[index]
    assert result_bounds("mw-reach", "eval/success") == (0.0, 1.0)
    assert result_bounds("gym:Pendulum-v1", "eval/return") == ANY


@pytest.mark.parametrize(
    ("study", "out", "message"),
    [("sizs", "x", "did you mean 'sizes'"), ("alone", "file/x", "cannot write .*; choose another --out")],
)
def test_what_cannot_be_reported(
    lab: SimpleNamespace, tmp_path: Path, study: str, out: str, message: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message):
        write_report(EXPERIMENT, lab.uri, study, tmp_path / out)
