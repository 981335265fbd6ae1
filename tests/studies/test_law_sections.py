"""The page's laws of data: on a study that follows one, in tables, in words and in a browser."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from browsers import chromium
from conftest import Callbacks, fake_trial
from synthetic import EXPERIMENT, PARAMS, law_steps, log_law_study

from tdmpc_ray import cli
from tdmpc_ray.studies.results.analysis.build import build_report
from tdmpc_ray.studies.results.costs import with_costs
from tdmpc_ray.studies.results.page import save_report, write_report
from tdmpc_ray.studies.results.study_runs import load_study_runs

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
    report = build_report(with_costs(load_study_runs(EXPERIMENT, uri, "laws"), uri), THRESHOLDS)
    page = save_report(report, folder / "page", uri)
    return SimpleNamespace(page=page, uri=uri, **{section.key: section for section in report.sections})


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
    assert "850 (parameters)" in laws.budget.text[1]


def test_losses_of_episodes_kept_from_training_stand_beside_the_others(laws: SimpleNamespace) -> None:
    assert [picture.name for picture in laws.validation.pictures] == ["td_error", "consistency", "reward"]
    table = laws.validation.table
    assert len(table) == 5 * 4
    for row in table.itertuples():
        assert row.td_error_ratio == pytest.approx(1 + float(row.setting.removeprefix("utd_ratio=")))


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
        (["--law", "synthetic", "--threshold", "950"], "--law: study 'laws' tells none: runs of 0 "),
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
