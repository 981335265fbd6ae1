"""The page's laws of data: on a study that follows one, in tables, in words and in a browser."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from browsers import chromium
from conftest import Callbacks, fake_trial
from synthetic import EXPERIMENT, PARAMS, STEPS, law_steps, log_law_study

from tdmpc_ray import cli
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.results.analysis.budget import prices_of
from tdmpc_ray.studies.results.analysis.build import build_report
from tdmpc_ray.studies.results.analysis.law_runs import LawRuns, law_runs
from tdmpc_ray.studies.results.analysis.law_words import fit_study
from tdmpc_ray.studies.results.analysis.section import Evidence
from tdmpc_ray.studies.results.costs import with_costs
from tdmpc_ray.studies.results.laws.data_law import DataLaw
from tdmpc_ray.studies.results.page import save_report, write_report
from tdmpc_ray.studies.results.study_runs import StudyRuns, load_study_runs
from tdmpc_ray.studies.run.law_plan import _need

THRESHOLDS = (500.0, 750.0, 850.0)


@pytest.fixture(scope="module")
def laws(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The report of a study that follows a law of size and ratio: its sections and its page."""
    folder = tmp_path_factory.mktemp("laws")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    uri = f"sqlite:///{folder}/mlflow.db"
    drive: Any = lambda callback: Callbacks(callback)  # noqa: E731
    drive.trial = fake_trial
    log_law_study(drive, uri, folder, "laws")
    runs = with_costs(load_study_runs(EXPERIMENT, uri, "laws"), uri)
    report = build_report(runs, THRESHOLDS)
    page = save_report(report, folder / "page", uri)
    sections = {section.key: section for section in report.sections if section.key != "runs"}
    return SimpleNamespace(page=page, uri=uri, runs=runs, **sections)


def test_data_is_counted_to_thresholds(laws: SimpleNamespace) -> None:
    table = laws.data.table
    assert list(table["threshold"].unique()) == ["500", "750", "850"]
    assert len(table) == 3 * 5 * 4
    assert len(laws.data.pictures) == 2
    for row in table.itertuples():
        truth = law_steps(row.model_size, row.ratio, float(row.threshold))
        assert row.runs == 3
        if row.reached == 3:
            assert row.steps == pytest.approx(truth, rel=0.35)
        else:  # it did not fit into the 10,000 steps of every run
            assert truth > 8000
            assert row.steps <= 10_000 * (1 + 1e-9)
            assert row.high != row.high
        assert row.law == pytest.approx(truth, rel=0.2)


def test_laws_have_intervals_and_foretell_what_was_kept_from_them(laws: SimpleNamespace) -> None:
    table = laws.laws.table
    assert list(table["reached"])[:2] == [60, 60]
    for row in table.to_dict("records"):
        assert row["exponent of ratio, low"] < 0.9 < row["exponent of ratio, high"]
        assert row["exponent of parameters, low"] < 0.6 < row["exponent of parameters, high"]
        assert abs(row["error of the largest ratio"]) < 0.2
    (*_, law, of_ratio, of_size) = laws.laws.text
    assert law.startswith("To 850: D = ")
    assert "with ratio 2, the law of all others says" in of_ratio
    assert "with 317M parameters, the law of all others says" in of_size
    assert "inside the interval" in of_ratio


def test_mlflow_has_the_laws_and_a_link_to_the_page(laws: SimpleNamespace, tmp_path: Path) -> None:
    from tdmpc_ray.studies.tracking.client import connect

    for _ in range(2):
        write_report(EXPERIMENT, laws.uri, "laws", tmp_path / "out", thresholds=THRESHOLDS)
    client = connect(laws.uri)
    (run_id,) = load_study_runs(EXPERIMENT, laws.uri, "laws").parent_run_ids
    run = client.get_run(run_id)
    metrics = run.data.metrics
    low, middle, high = (metrics[f"law/850/exponent_of_ratio{end}"] for end in ("_low", "", "_high"))
    assert low < 0.9 < high
    assert low < middle < high
    assert abs(metrics["law/500/error_of_largest_parameters"]) < 0.2
    place = "artifacts/report/report.html"
    assert run.data.tags["mlflow.note.content"].endswith(f"/runs/{run_id}/{place})")
    table = json.loads(Path(client.download_artifacts(run_id, "report/laws.json", str(tmp_path))).read_text())
    assert table["columns"][:2] == ["task", "threshold"]
    assert len(table["data"]) == len(THRESHOLDS)


def test_the_cheapest_way_is_between_what_was_tried(laws: SimpleNamespace) -> None:
    table = laws.budget.table
    for row in table.itertuples():
        assert row.params == PARAMS["1"]  # FLOPs grow faster with size than data falls
        assert 0.3 < row.ratio_low <= row.ratio <= row.ratio_high < 0.6
        assert row.steps_low < law_steps("1", row.ratio, float(row.threshold)) * 1.1
        assert row.hours == pytest.approx(row.steps * (0.01 + 1e-11 * row.flops / row.steps) / 3600, rel=0.05)
    assert any("850 (parameters)" in sentence for sentence in laws.budget.text)


def test_losses_of_episodes_kept_from_training_stand_beside_the_others(laws: SimpleNamespace) -> None:
    assert [picture.name for picture in laws.validation.pictures] == ["td_error", "consistency", "reward"]
    table = laws.validation.table
    assert len(table) == 5 * 4
    for row in table.itertuples():
        assert row.td_error_ratio == pytest.approx(1 + float(row.setting.removeprefix("utd_ratio=")))


def varied(laws: SimpleNamespace, **changes: Any) -> StudyRuns:
    """The study, its runs changed."""
    return replace(laws.runs, **changes)


def test_what_runs_begin_with_is_no_threshold(laws: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="--threshold 0: a random policy gets as much, give a higher one"):
        build_report(laws.runs, (0.0, 500.0))


def test_young_studies_and_models_of_other_sizes_by_task(laws: SimpleNamespace) -> None:
    """Two tasks, whose models of one size differ by what they observe; and of one evaluation each, no law."""
    trials, curves = laws.runs.trials, laws.runs.curves
    other = trials.assign(
        task="cheetah-run", run_id=trials["run_id"] + "x", params=trials["params"] + 1000, seed=trials["seed"]
    )
    both = pd.concat([trials, other], ignore_index=True)
    points = pd.concat(
        [curves, curves.assign(task="cheetah-run", run_id=curves["run_id"] + "x")], ignore_index=True
    )
    returns = {"walker-walk": 0.0, "cheetah-run": 0.0}
    two = varied(laws, trials=both, curves=points, random_returns=returns)
    found = law_runs(Evidence(two))
    assert isinstance(found, LawRuns)
    assert found.tasks == ["", "cheetah-run", "walker-walk"]
    assert found.axes == ("ratio", "parameters")
    assert found.of("").rows["params"].nunique() == len(PARAMS)
    one_size = both["model_size"] == "1"
    kept = points[points["run_id"].isin(both[one_size]["run_id"])]
    alone = law_runs(Evidence(varied(laws, trials=both[one_size], curves=kept, random_returns=returns)))
    assert isinstance(alone, LawRuns)
    assert alone.axes == ("ratio",)
    young = points[points["env_steps"] == STEPS[-1]]
    assert law_runs(Evidence(varied(laws, trials=both, curves=young, random_returns={}))) == (
        "no run has two evaluations"
    )


def test_updates_cost_what_those_of_the_best_batch_do(laws: SimpleNamespace) -> None:
    """Half of the runs with batches four times as large, which learn more slowly."""
    trials, curves = laws.runs.trials, laws.runs.curves
    large = trials["seed"] == "2"
    batch = large.map({True: "1024", False: "256"})
    slow = curves["run_id"].isin(trials[large]["run_id"])
    spent = curves["train_flops"].where(~slow, 4 * curves["train_flops"])
    runs = varied(
        laws,
        trials=trials.assign(**{"param.update.batch_size": batch}),
        curves=curves.assign(value=curves["value"].where(~slow, curves["value"] / 2), train_flops=spent),
    )
    evidence = Evidence(runs)
    found = law_runs(evidence)
    assert isinstance(found, LawRuns)
    prices = prices_of(evidence, found.tuned(0.4))
    assert prices is not None
    assert math.exp(prices.log_update[0]) == pytest.approx(6.0 * PARAMS["1"] * 256)


def test_a_plan_beyond_the_ratios_that_were_tried_says_so(laws: SimpleNamespace) -> None:
    """Also where all runs had the same one, so that the law does not speak of it."""
    trials = laws.runs.trials
    same = trials[trials["param.data.utd_ratio"].astype(float) == 1.0]
    curves = laws.runs.curves[laws.runs.curves["run_id"].isin(same["run_id"])]
    evidence = Evidence(varied(laws, trials=same, curves=curves))
    found = law_runs(evidence)
    assert isinstance(found, LawRuns)
    (fitted,) = fit_study(evidence, found, (500.0,))
    assert isinstance(fitted.law, DataLaw)
    study = make_study({"name": "s", "task": "walker-walk", "steps": 4000, "model_sizes": ["5"]})
    for ratio, is_beyond in ((1.0, False), (8.0, True)):
        trial = SimpleNamespace(
            ratio=ratio, num_params=PARAMS["5"], point=study.points()[0], start_s=0.0, rate=10.0
        )
        assert _need(study, trial, [fitted], "500").is_beyond == is_beyond


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """A study on a cluster that need not be there."""
    file = tmp_path / "next.yaml"
    file.write_text("name: next\ntask: walker-walk\nmodel_sizes: [tiny, 1, 5]\nsteps: 4000\n")
    return file


def test_a_plan_says_what_its_trials_need(
    laws: SimpleNamespace, planned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", laws.uri)
    hardware = ["--gpus", "0", "--cpus", "4", "--env-ms", "1", "--core-gflops", "50"]
    command = [
        "plan",
        str(planned),
        *hardware,
        "--law",
        EXPERIMENT,
        "--threshold",
        "500",
        "--threshold",
        "850",
    ]
    assert cli.main([*command, "--json"]) == 0
    needs = json.loads(capsys.readouterr().out)["needs"]
    assert [need["threshold"] for need in needs] == ["500"] * 3 + ["850"] * 3
    tiny = [need for need in needs if need["is_beyond"]]
    assert {need["label"] for need in tiny} == {"size=tiny"}
    for need in needs:
        size = need["label"].removeprefix("size=")
        if size == "tiny":
            continue
        middle = law_steps(size, 1.0, float(need["threshold"]))
        assert middle < need["steps"] == pytest.approx(middle * math.exp(1.645 * 0.1), rel=0.15)
        assert need["interval"][0] < need["steps"] < need["interval"][1]
        assert need["hours_interval"][0] < need["hours"] < need["hours_interval"][1]
        assert (need["share"] > 0.5) == (middle < 4000)
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"to reach 500 with 95 %: size=1, about \d\.\d+k agent steps \(\d\S*k to \d\S*k\), ", said
    )
    assert "to reach 850: size=tiny lies beyond what the law was fitted to" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--threshold", "500"], "--threshold goes with --law"),
        (["--law", "synthetic", "--threshold", "950"], "--law: study 'laws' tells none: 0 ratios reach it"),
    ],
)
def test_what_tells_no_law_is_one_line(
    laws: SimpleNamespace,
    planned: Path,
    options: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", laws.uri)
    hardware = ["--gpus", "0", "--cpus", "4", "--env-ms", "1", "--core-gflops", "50"]
    assert cli.main(["plan", str(planned), *hardware, *options]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_it_moves_in_the_browser_without_a_network(laws: SimpleNamespace) -> None:
    with chromium() as browser:
        for width in (1280, 390):
            page = browser.new_page(viewport={"width": width, "height": 900})
            faults: list[str] = []
            page.on("pageerror", lambda error, faults=faults: faults.append(str(error)))
            page.on(
                "request",
                lambda request, faults=faults: faults.extend([request.url] * ("http" in request.url)),
            )
            page.goto(laws.page.as_uri())
            rows = page.locator("#budget-widget tbody tr")

            def chosen(rows: Any = rows) -> list[str]:
                return [cell.split(" (")[0] for cell in rows.nth(1).locator("td").all_inner_texts()]

            table = laws.budget.table.iloc[1]
            assert chosen()[:2] == ["750", "960k"]
            assert float(chosen()[2]) == pytest.approx(table["ratio"], rel=0.05)
            price = page.get_by_label("price of a step")
            price.fill("100")  # a step is worth far more than all FLOPs: the largest size, the largest ratio
            assert chosen()[1:3] == ["317M", "2"]
            assert "FLOPs" in page.locator("output.price").inner_text()
            page.get_by_label("budget").fill("0")
            assert "too small" in page.locator(".answer").inner_text()
            page.get_by_label("budget").fill("100")
            assert page.locator(".answer").inner_text().startswith("The budget reaches 850: 317M parameters")
            before = page.locator("#budget-widget svg").inner_html()
            page.get_by_label("threshold", exact=True).select_option(index=0)
            assert page.locator("#budget-widget svg").inner_html() != before
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert faults == []
            page.close()
