"""What a study leaves in MLflow beside its metrics: runs of one name, artifacts, tags."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from callbacks import NOBODY, make
from matplotlib.figure import Figure

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.tracking.callback import StudyRun
from tdmpc_ray.studies.tracking.client import connect


def test_parameters_that_a_scheduler_changes_become_metrics(
    store: str, tmp_path: Path, drive: Any, mlflow_read: Any
) -> None:
    tracker = make(store, tmp_path / "spool")
    tracker.setup()
    calls = drive(tracker)
    trial = drive.trial("a", lr=0.1, seed=0)
    calls.start(trial)
    calls.result(trial, 100, eval__return=1.0)
    trial.config = {"lr": 0.3, "seed": 0}
    calls.start(trial)  # PBT restarts the trial from another one's checkpoint
    calls.result(trial, 200, eval__return=2.0)
    calls.start(trial)  # nothing new
    trial.config = {"lr": 0.1, "seed": 0}
    calls.start(trial)
    calls.complete(trial)
    calls.end()
    run = mlflow_read.runs(store, "exp")["lr=0.1 seed=0"]
    assert run.data.params == {"lr": "0.1", "seed": "0"}
    assert mlflow_read.points(store, run, "hp/lr") == [(0, 0.1), (100, 0.3), (200, 0.1)]
    assert "hp/seed" not in run.data.metrics
    assert not (tmp_path / "spool" / "mlflow_rejected.jsonl").exists()


def test_what_cloning_reports_lies_over_its_own_updates(
    store: str, tmp_path: Path, drive: Any, mlflow_read: Any
) -> None:
    tracker = make(store, tmp_path / "spool")
    tracker.setup()
    calls = drive(tracker)
    trial = drive.trial("a", seed=0)
    calls.start(trial)
    for updates in (100, 200):
        calls.result(trial, 0, bc__updates=updates, bc__loss=1 / updates, time__wall_s=updates)
    calls.result(trial, 50, time__wall_s=300.0)
    calls.complete(trial)
    calls.end()
    (run,) = (run for run in mlflow_read.runs(store, "exp").values() if run.data.tags["kind"] == "trial")
    assert mlflow_read.points(store, run, "bc/loss") == [(100, 0.01), (200, 0.005)]
    assert mlflow_read.points(store, run, "time/wall_s")[-1] == (50, 300.0)


def test_two_studies_of_one_name_do_not_mix(store: str, tmp_path: Path, drive: Any) -> None:
    trackers = [make(store, tmp_path / name) for name in ("one", "two")]
    for index, tracker in enumerate(trackers):
        tracker.setup()
        calls = drive(tracker)
        calls.start(drive.trial("same-id", seed=index))
        calls.complete(calls.trials[0])
    for tracker in trackers:
        tracker.close("FINISHED")
    client = connect(store)
    experiment = client.get_experiment_by_name("exp").experiment_id
    parents = [tracker.parent_run_id for tracker in trackers]
    assert len(set(parents)) == 2
    for index, parent in enumerate(parents):
        children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
        assert [child.data.params["seed"] for child in children] == [str(index)]


def test_artifacts_of_a_sqlite_store_open_in_the_ui(server_process: Any, tmp_path: Path) -> None:
    """The server here plays `mlflow ui` on a store that a study without a server has written to."""
    server_process.start()
    store = f"sqlite:///{server_process.folder}/server.db"
    tracker = make(store, tmp_path / "spool", study="figures")
    tracker.setup()
    figure = Figure()
    figure.subplots().plot([1, 2])
    path = tmp_path / "scaling.png"
    figure.savefig(path)
    tracker.study_run.log_artifact(path, "figures")
    assert tracker.close("FINISHED") is None
    address = f"{server_process.uri}/get-artifact?path=figures/scaling.png&run_uuid={tracker.parent_run_id}"
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert answer.read() == path.read_bytes()


def test_artifacts_go_through_a_server(server: Any, tmp_path: Path) -> None:
    note = tmp_path / "study.yaml"
    note.write_text("name: x\n")
    tracker = make(server.uri, tmp_path / "spool", study="upload", artifacts=[note])
    tracker.setup()
    assert tracker.close("FINISHED") is None
    address = f"{server.uri}/get-artifact?path=study.yaml&run_uuid={tracker.parent_run_id}"
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert answer.read() == b"name: x\n"


def test_git_state_is_a_tag(
    store: str, tmp_path: Path, mlflow_read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    monkeypatch.chdir(repository)
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    (repository / "file").write_text("1")
    for command in (["init", "-q"], ["add", "file"], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], check=True)
    sha = subprocess.run(
        ["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    for study, dirty in (("clean", "false"), ("dirty", "true")):
        tracker = make(store, tmp_path / study, study=study)
        tracker.setup()
        tracker.close("FINISHED")
        tags = mlflow_read.runs(store, "exp")[study].data.tags
        assert (tags["git_sha"], tags["git_dirty"]) == (sha, dirty)
        (repository / "file").write_text("2")


def test_opening_a_folder_without_a_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no study was tracked"):
        StudyRun.open(tmp_path)
    (tmp_path / "tracking.json").write_text('{"uri": "x"}')
    with pytest.raises(UserError, match="missing or damaged"):
        StudyRun.open(tmp_path)


def test_quotes_in_a_study_name(store: str, tmp_path: Path, drive: Any, mlflow_read: SimpleNamespace) -> None:
    tracker = make(store, tmp_path / "spool", study="it's `odd` %_")
    tracker.setup()
    tracker.close("FINISHED")
    assert mlflow_read.runs(store, "exp")["it's `odd` %_"].info.status == "FINISHED"


def test_a_result_costs_the_study_next_to_nothing(tmp_path: Path, drive: Any) -> None:
    tracker = make(NOBODY, tmp_path / "spool", shutdown_s=5)
    tracker.setup()
    calls = drive(tracker)
    calls.start(drive.trial("a", seed=0))
    report = {f"train__m{i}": float(i) for i in range(40)}
    began = time.thread_time()
    for step in range(200):
        calls.result(calls.trials[0], step, **report)
    assert (time.thread_time() - began) / 200 < 0.005
    tracker.close()
