"""Result folders that are compared, by the command."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from written_study import run_study

from tdmpc_ray import cli
from tdmpc_ray.cli import forms
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.files import TRACKING_FOLDER
from tdmpc_ray.studies.file.folder import begin, only_process
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.file.record import local_runs
from tdmpc_ray.studies.file.tracked import named_studies
from tdmpc_ray.studies.results.setting_names import _default
from tdmpc_ray.studies.results.study_runs import load_study_runs
from tdmpc_ray.studies.tracking.callback import MLflowTracker
from tdmpc_ray.studies.tracking.spooled import SPOOL_FILE


def tracked(drive: Any, uri: str, out: Path, study: str, lr: float | None, experiment: str = "lab") -> None:
    """A finished run of one trial, with its folder."""
    begin(make_study({"name": study, "task": "walker-walk", "steps": 1000}), out, None)
    spool = out / TRACKING_FOLDER
    tracker = MLflowTracker(uri=uri, experiment=experiment, study=study, spool_dir=spool)
    tracker.setup()
    calls = drive(tracker)
    settings = {"preset": "light"} | ({} if lr is None else {"update.lr": lr})
    one = drive.trial("a", model_size="1", seed=0, task="walker-walk", **settings)
    calls.start(one)
    calls.result(one, 1000, eval__return=100.0 * (lr or 1), summary__params_total=1e6)
    calls.complete(one)
    assert tracker.close("FINISHED") is None


def test_result_folders_are_compared(
    drive: Any, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    folders = ["results/a", "results/b", "results/c"]
    for folder, lr in zip(folders, (None, 0.001, 0.001), strict=True):
        tracked(drive, store, tmp_path / folder, "same-name", lr)
    named = named_studies(folders[:2], None, None)
    assert (named.experiment, named.uri) == ("lab", store)
    runs = load_study_runs(*named)
    # What one run leaves to its preset, it says beside the other; one size is not worth a word.
    assert runs.settings == ["lr=0.0003", "lr=0.001"]
    assert [runs.label(group) for group in runs.groups] == runs.settings
    runs = load_study_runs(*named_studies(folders[1:], None, None))
    assert len(runs.settings) == 2, "equal seeds of two runs are not two seeds"
    assert all(label.startswith("run=same-name ") for label in runs.settings)
    printed = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", printed)
        assert cli.main(["compare", *folders[:2], "--out", "figure.png"]) == 0
    assert "lr=0.0003" in printed.getvalue()
    assert (tmp_path / "figure.png").is_file()


def test_defaults_of_a_task_are_not_taken_for_those_of_a_preset() -> None:
    for key in ("update.discount_max", "update.rho", "model.episodic"):
        assert _default(key, "1", "paper", "tdmpc2") is None
    assert _default("update.lr", "1", "paper", "tdmpc2") == "0.0003"


def test_a_folder_that_mlflow_lacks_points_to_sync(
    drive: Any,
    store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    tracked(drive, store, tmp_path / "results/a", "a", None)
    file = tmp_path / "results/a" / TRACKING_FOLDER / "tracking.json"
    file.write_text(file.read_text().replace('"uid": "', '"uid": "another-'))
    waiting = file.with_name(SPOOL_FILE)
    for command in ("compare", "report"):
        waiting.unlink(missing_ok=True)
        assert cli.main([command, "results/a"]) == 2
        assert capsys.readouterr().err.startswith("error: no study 'another-a-")
        waiting.touch()
        assert cli.main([command, "results/a"]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(
            "error: MLflow has not got all of results/a: bring it with `tdmpc-ray sync results/a` (no study"
        )
    assert cli.main(["runs"]) == 0
    said = "MLflow has not got all of results/a: tdmpc-ray sync DIR brings it the rest"
    assert capsys.readouterr().out.splitlines()[-1] == said
    with only_process(tmp_path / "results/a"):
        assert not local_runs([tmp_path / "results"])[0].waits, "the process brings it"


def test_what_cannot_be_compared_is_said(
    drive: Any, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracked(drive, store, tmp_path / "r/a", "a", None)
    tracked(drive, store, tmp_path / "r/b", "b", None, experiment="other")
    (tmp_path / "tdmpc-ray").mkdir()

    def refusal(*what: str, study: list[str] | None = None) -> str:
        with pytest.raises(UserError) as caught:
            named_studies(what, study, None)
        return str(caught.value)

    assert named_studies(["tdmpc-ray"], ["x"], None) == ("tdmpc-ray", "sqlite:///mlflow.db", ["x"])
    assert named_studies(["/Users/me/x"], None, "databricks") == ("/Users/me/x", "databricks", None)
    assert refusal("one", "two").startswith("one experiment at a time, not one, two: ")
    assert "not both: 'lab' is no result folder" in refusal("r/a", "lab")
    assert "not both: 'x' is no result folder" in refusal("r/a", study=["x"])
    assert refusal("r/a", "r/b").startswith("these studies lie in several experiments of MLflow ('lab' at ")
    assert refusal("r/typo") == "there is no folder r/typo"
    assert "has no study.yaml" in refusal(f"{tmp_path}/r")


def test_runs_that_differ_only_in_their_seeds_are_one_setting(drive: Any, store: str, tmp_path: Path) -> None:
    run_study(drive, store, tmp_path, "first", sizes=("1",), seeds=1)
    tracker = MLflowTracker(uri=store, experiment="walkers", study="second", spool_dir=tmp_path / "spool")
    tracker.setup()
    calls = drive(tracker)
    one = drive.trial("b", model_size="1", seed=1, task="walker-walk")
    calls.start(one)
    calls.result(one, 3000, eval__return=100.0)
    calls.complete(one)
    assert tracker.close("FINISHED") is None
    assert load_study_runs("walkers", store, ["first", "second"]).settings == [""]


def test_compare_as_json(
    drive: Any,
    store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run_study(drive, store, tmp_path, "sizes", sizes=("1", "19"), seeds=2)
    compare = ["compare", "walkers", "--mlflow-uri", store, "--json", "--out", "a.png"]
    assert cli.main([*compare, "--over", "tdmpc2"]) == 0
    found = json.loads(capsys.readouterr().out)
    forms.CompareForm.model_validate(found)
    assert set(found) == set(forms.CompareForm.model_fields)
    assert [(row["model_size"], row["final"]) for row in found["results"]] == [
        ("1", 605.0),
        ("19", 905.0),
        ("random policy", 39.0),
    ]
    assert found["results"][2]["low"] is None
    assert {row["algorithm"] for row in found["published"]} == {"tdmpc2"}
    assert (found["figure"], found["metric"]) == ("a.png", "eval/return")
    assert cli.main([*compare, "--metric", "time/wall_s"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["final"] == 300.0


def test_a_metric_that_is_not_there_is_answered_with_those_that_are(
    drive: Any, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_study(drive, store, tmp_path, "one", sizes=("1",), seeds=1)
    for command in ("compare", "report"):
        options = ["walkers", "--mlflow-uri", store, "--out", str(tmp_path / "x"), "--metric"]
        assert cli.main([command, *options, "eval/retrun"]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(
            "error: study 'one' has no metric 'eval/retrun': did you mean 'eval/return'?; "
        )
        assert "there are: eval/return, " in line
        assert "time/wall_s" in line
    run_study(drive, store, tmp_path, "early", sizes=("1",), seeds=1, evaluate=False)
    with pytest.raises(UserError, match="which ended before the first evaluation"):
        load_study_runs("walkers", store, "early", metric="eval/return")


def test_a_study_that_goes_on_with_another_mlflow_has_runs_there(
    drive: Any, store: str, empty_store: Path, tmp_path: Path
) -> None:
    shutil.copy(empty_store, tmp_path / "other.db")
    other = f"sqlite:///{tmp_path}/other.db"

    def tracker_of(uri: str) -> MLflowTracker:
        return MLflowTracker(uri=uri, experiment="lab", study="s", spool_dir=tmp_path / "spool")

    first, again = tracker_of(store), tracker_of(other)
    first.setup()
    calls, one = drive(first), drive.trial("a", model_size="1", seed=0, task="walker-walk")
    calls.start(one)
    calls.result(one, 1000, eval__return=1.0)
    assert first.close("KILLED") is None
    again.set_state(first.get_state())
    again.setup()
    calls = drive(again)
    calls.start(one)
    calls.result(one, 2000, eval__return=2.0)
    calls.complete(one)
    assert again.close("FINISHED") is None
    assert load_study_runs("lab", other).curves["value"].tolist() == [2.0]
