"""The tracker in real, tiny Tune studies: statuses, interruption, restore."""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle, tune
from rich.console import Console

from tdmpc_ray.studies.run.progress import ProgressTable
from tdmpc_ray.studies.tracking.callback import DROPPED, FINAL_RETURN, MLflowTracker, StudyRun
from tdmpc_ray.studies.tracking.client import connect

RESULTS = 6  # per trial, 100 agent steps each

# Ray's workers cannot import test modules.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.usefixtures("local_ray")


def train(config: dict[str, Any]) -> None:
    """Report RESULTS results, going on from a checkpoint; raise at the third if the config says so."""
    start = 0
    checkpoint = tune.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            start = int((Path(folder) / "done").read_text())
    for index in range(start, RESULTS):
        if config.get("fail") and index == 2:
            raise RuntimeError("as the test wants")
        report = {"train/return": 10.0 * index, "agent[0]": 1.0, "train/loss/total": float("nan")}
        if index % 2 == 1:
            report["eval/return"] = 100.0 * config["seed"] + index
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "done").write_text(str(index + 1))
            if index + 1 == RESULTS:
                (Path(folder) / "videos").mkdir()
                (Path(folder) / "videos" / "toy.mp4").write_bytes(b"film")
            tune.report(
                {"env_steps": 100 * (index + 1), "report": report},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )


def trial_params(config: dict[str, Any]) -> dict[str, Any]:
    return {"model_size": "tiny", "seed": config["seed"], "update.lr": 1e-3}


def make_tracker(uri: str, folder: Path, **values: Any) -> MLflowTracker:
    return MLflowTracker(
        uri=uri, experiment="exp", study="toy", spool_dir=folder, trial_params=trial_params, **values
    )


def make_tuner(folder: Path, space: dict[str, Any], *callbacks: tune.Callback) -> tune.Tuner:
    return tune.Tuner(
        tune.with_resources(train, {"cpu": 2}),  # two trials at once
        param_space=space,
        run_config=tune.RunConfig(
            name="toy", storage_path=str(folder), callbacks=list(callbacks), verbose=0, log_to_file=False
        ),
    )


def evaluations(seed: int) -> list[tuple[int, float]]:
    return [(100 * (index + 1), 100.0 * seed + index) for index in range(1, RESULTS, 2)]


class InterruptAt(tune.Callback):
    """Presses Ctrl-C once, at the given number of results of the study."""

    def __init__(self, results: int) -> None:
        self.left = results

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)

    def __getstate__(self) -> dict[str, Any]:
        return {"left": 0}  # not again after the restore


def test_a_study_with_a_failing_trial(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"metadata": {"job_submission_id": "raysubmit_1"}}')
    study_file = tmp_path / "study.yaml"
    study_file.write_text("name: toy\n")
    printed = io.StringIO()
    progress = ProgressTable(trial_params=trial_params, console=Console(file=printed))
    tracker = make_tracker(store, tmp_path / "spool", tags={"team": "a"}, artifacts=[study_file])
    fail = tune.sample_from(lambda config: config["seed"] == 1)
    space = {"seed": tune.grid_search([0, 1]), "fail": fail, "total_steps": 100 * RESULTS}
    make_tuner(tmp_path / "tune", space, tracker, progress).fit()

    runs = mlflow_read.runs(store, "exp")
    good, bad = (runs.pop(f"size=tiny seed={seed} update.lr=0.001") for seed in (0, 1))
    parent = runs.pop("toy")
    assert runs == {}
    statuses = [run.info.status for run in (good, bad, parent)]
    assert statuses == ["FINISHED", "FAILED", "FAILED"]
    assert parent.info.run_id == tracker.parent_run_id == good.data.tags["mlflow.parentRunId"]
    assert (parent.data.tags["kind"], good.data.tags["kind"]) == ("study", "trial")
    for run in (good, bad, parent):
        tags = run.data.tags
        assert (tags["study"], tags["team"], tags["ray_submission_id"]) == ("toy", "a", "raysubmit_1")
        assert tags["version.mlflow"].startswith("3.")
        assert run.info.end_time >= run.info.start_time
    assert good.data.params == {
        "model_size": "tiny",
        "seed": "0",
        "update.lr": "0.001",
    }
    assert mlflow_read.points(store, good, "eval/return") == evaluations(0)
    assert mlflow_read.points(store, bad, "train/return") == [(100, 0.0), (200, 10.0)]
    assert mlflow_read.points(store, good, DROPPED) == [(100 * (i + 1), i + 1.0) for i in range(RESULTS)]
    assert mlflow_read.points(store, good, FINAL_RETURN) == [(600, 5.0)]
    assert good.data.metrics["agent_0_"] == 1.0
    assert [item.path for item in connect(store).list_artifacts(parent.info.run_id)] == ["study.yaml"]
    films = [connect(store).list_artifacts(run.info.run_id, "videos") for run in (good, bad)]
    assert [[item.path for item in items] for items in films] == [["videos/toy.mp4"], []]
    lines = printed.getvalue().splitlines()
    assert "size=tiny seed=0 update.lr=0.001: 600/600 steps, eval return 5.0" in "\n".join(lines)
    assert any(line.startswith("size=tiny seed=1 update.lr=0.001: failed after 200 steps") for line in lines)


def test_ctrl_c_then_restore_keeps_the_runs(store: str, tmp_path: Path, mlflow_read: SimpleNamespace) -> None:
    tracker = make_tracker(store, tmp_path / "spool")
    # Of three trials two at once: the third never starts before the interrupt.
    space = {"seed": tune.grid_search([0, 1, 2])}
    make_tuner(tmp_path / "tune", space, tracker, InterruptAt(4)).fit()
    before = mlflow_read.runs(store, "exp")
    names = [f"size=tiny seed={seed} update.lr=0.001" for seed in (0, 1, 2)]
    assert {run.info.status for run in before.values()} == {"KILLED"}
    assert set(before) <= {"toy", *names[:2]}
    assert len(before) >= 2

    restored = tune.Tuner.restore(str(tmp_path / "tune" / "toy"), tune.with_resources(train, {"cpu": 1}))
    restored.fit()
    after = mlflow_read.runs(store, "exp")
    assert set(after) == {"toy", *names}
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    for name, run in before.items():
        assert after[name].info.run_id == run.info.run_id
    for seed, name in enumerate(names):
        # Every step is there; one that ran again after the last checkpoint has the same value.
        assert sorted(set(mlflow_read.points(store, after[name], "eval/return"))) == evaluations(seed)
    # The restored callback is not the one that we hold; its study's run can be added to all the same.
    run = StudyRun.open(tmp_path / "spool")
    run.log_metrics({"baseline/random_return": 39.0})
    assert run.flush() is None
    assert mlflow_read.runs(store, "exp")["toy"].data.metrics["baseline/random_return"] == 39.0
