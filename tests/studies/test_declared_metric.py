"""Of several checkpoints the best one is chosen by what the study, the Tuner or the task declares."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
from agents import random_checkpoint
from ray import tune

from tdmpc_ray import __version__
from tdmpc_ray.rllib import TDMPC2, TDMPC2Config
from tdmpc_ray.rllib.checkpoints.manifest import seal
from tdmpc_ray.studies.file.files import STUDY_FILE
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.file.record import StudyRecord, write_record
from tdmpc_ray.studies.file.tune_folder import TUNE_FOLDER
from tdmpc_ray.studies.models.best_checkpoint import best_checkpoint

PENDULUM = "gym:Pendulum-v1"
# The first is the best one by return, the second by success, the third by its worst episode.
EVALUATIONS = [
    {"eval/return": 9.0, "eval/success": 0.2, "eval/return_min": 1.0},
    {"eval/return": 5.0, "eval/success": 0.8, "eval/return_min": 2.0},
    {"eval/return": 4.0, "eval/success": 0.1, "eval/return_min": 3.0},
]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("networks"), PENDULUM, {"model.mlp_dim": 16})


def trial(folder: Path, networks: Path, metric: str | None = None) -> None:
    """A trial's folder with a checkpoint for each of `EVALUATIONS`, of a task that declares `metric`."""
    for number, latest in enumerate(EVALUATIONS):
        checkpoint = folder / f"checkpoint_{number}"
        shutil.copytree(networks, checkpoint)
        state = {"tdmpc_ray": {"latest": latest, "evaluated_at": 50, "metric": metric}}
        (checkpoint / "algorithm_state.pkl").write_bytes(pickle.dumps(state))
        seal(checkpoint)


def declare(folder: Path, metric: str, mode: str) -> None:
    """Write what Tune writes of a Tuner."""
    tune.Tuner(
        TDMPC2,
        param_space=TDMPC2Config().environment(PENDULUM),
        tune_config=tune.TuneConfig(metric=metric, mode=mode),
        run_config=tune.RunConfig(name=folder.name, storage_path=str(folder.parent)),
    )


@pytest.mark.parametrize(("metric", "best"), [("eval/return_min", 2), ("eval/success", 1), (None, 0)])
def test_by_the_metric_of_a_study(metric: str | None, best: int, networks: Path, tmp_path: Path) -> None:
    trial(tmp_path / TUNE_FOLDER / "size1-seed0-abc", networks, "eval/success")
    study = make_study({"name": "s", "task": PENDULUM, "steps": 1, "metric": metric})
    (tmp_path / STUDY_FILE).write_text(study.to_yaml())
    found = best_checkpoint(tmp_path)
    assert (found.path.name, found.metric) == (f"checkpoint_{best}", metric or "eval/return")


def test_by_the_metric_of_a_study_whose_task_is_not_installed_here(networks: Path, tmp_path: Path) -> None:
    trial(tmp_path / TUNE_FOLDER / "size1-seed0-abc", networks, "eval/success")
    (tmp_path / STUDY_FILE).write_text("name: s\ntask: lab-arm\nsteps: 1\n")
    known = {"name": "s", "tasks": ["lab-arm"], "metric": "eval/success", "steps": 1, "expected_trials": 1}
    times = {"status": "finished", "started": 0.0, "updated": 0.0}
    write_record(tmp_path, StudyRecord(tdmpc_ray=__version__, **known, **times))
    found = best_checkpoint(tmp_path)
    assert (found.path.name, found.out) == ("checkpoint_1", tmp_path)


@pytest.mark.parametrize(
    ("key", "mode", "best"),
    [
        ("latest/eval/return", "max", 0),
        ("report/eval/return", "min", 2),
        ("latest/eval/success", "max", 1),
        ("evaluation/env_runners/episode_return_min", "max", 2),
    ],
)
def test_by_the_metric_of_a_tuner(key: str, mode: str, best: int, networks: Path, tmp_path: Path) -> None:
    trial(tmp_path / "experiment" / "trial", networks, "eval/return")
    declare(tmp_path / "experiment", key, mode)
    assert best_checkpoint(tmp_path / "experiment").path.name == f"checkpoint_{best}"


def test_a_tuners_metric_that_no_checkpoint_has(
    networks: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trial(tmp_path / "experiment" / "trial", networks, "eval/success")
    declare(tmp_path / "experiment", "report/train/return", "max")
    assert best_checkpoint(tmp_path / "experiment").path.name == "checkpoint_1"
    assert "the Tuner's metric report/train/return is of no evaluation: the task's decides" in caplog.text


@pytest.mark.parametrize(("metric", "best"), [("eval/return", 0), ("eval/success", 1), (None, 1)])
def test_by_the_metric_of_the_task(metric: str | None, best: int, networks: Path, tmp_path: Path) -> None:
    trial(tmp_path, networks, metric)
    assert best_checkpoint(tmp_path).path.name == f"checkpoint_{best}"
