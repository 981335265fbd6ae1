"""Trackers beside MLflow."""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import runner_stub
from ray import cloudpickle
from ray.air.integrations import wandb as integration
from rich.console import Console
from runner_stub import Stub

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.run.checks import prepare
from tdmpc_ray.studies.run.runner import run_study

cloudpickle.register_pickle_by_value(runner_stub)  # Ray's workers cannot import test modules


def study_of(uri: str, *also: str, **changes: Any) -> Any:
    tracking = {"uri": uri, "experiment": "exp", "also": [*also]}
    return make_study(runner_stub.values(uri, tracking=tracking, **changes))


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would show of a trial's folder."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list[tuple[int, float]]] = {}
    [file] = folder.glob("events.out.tfevents.*")
    data, position = file.read_bytes(), 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 8], "little")
        event = Event.FromString(data[position + 12 : position + 12 + length])
        position += 12 + length + 4
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


@pytest.mark.usefixtures("local_ray")
def test_event_files_lie_in_the_trials_folders_over_agent_steps(store: str, tmp_path: Path) -> None:
    study = study_of(store, "tensorboard", seeds=[0], steps=1000)
    result = run_study(study, tmp_path / "out", trainable=Stub, console=Console(file=io.StringIO()))
    assert result.finished == 1
    [folder] = (tmp_path / "out/tune").glob("size*")
    shown = scalars(folder)
    assert shown["ray/tune/train/return"] == [(n, n) for n in range(100, 1001, 100)]
    assert shown["ray/tune/eval/return"] == [(500, 50.0), (1000, 100.0)]


def test_wandb_that_is_missing_is_said_before_anything_starts(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"tracking\.also: unknown tracker 'wandbb': did you mean 'wandb'"):
        study_of(store, "wandbb")
    study = study_of(store, "wandb")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        prepare(study, Stub)
    assert str(caught.value) == "tracking.also: wandb is not installed: pip install 'tdmpc-ray[wandb]'"


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A wandb that nobody has logged in to, as far as Tune's callback asks before it starts its processes."""
    fake = SimpleNamespace(ensure_configured=lambda: None, api=SimpleNamespace(api_key=None))
    monkeypatch.setattr(integration, "wandb", fake)
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return fake


def test_wandb_without_a_login_is_said_before_anything_starts(
    store: str, wandb: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="wandb has no API key: set WANDB_API_KEY, WANDB_MODE=offline"):
        prepare(study_of(store, "wandb"), Stub)
    monkeypatch.setenv("WANDB_MODE", "offline")
    prepare(study_of(store, "wandb"), Stub)


def test_wandb_gets_our_metrics_names_and_steps(
    store: str, wandb: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tdmpc_ray.studies.run.wandb_logger import WandB
    from tdmpc_ray.studies.tracking.study_run import StudyRun

    uid = "toy-0123456789ab"
    StudyRun(uri=store, experiment="exp", study="toy", uid=uid, folder=tmp_path).save()
    started: dict[str, Any] = {}
    sent: list[tuple[str, dict[str, float]]] = []

    def start(self: Any, trial: Any, exclude: list[str], **options: Any) -> None:
        started.update(options)
        put = lambda item: sent.append((item[0].name, item[1]))  # noqa: E731
        self._trial_queues[trial] = SimpleNamespace(put=put)
        self._trial_logging_actors[trial] = None

    parent = integration.WandbLoggerCallback
    monkeypatch.setattr(parent, "_start_logging_actor", start)
    monkeypatch.setattr(parent, "_cleanup_logging_actors", lambda self, **_: None)
    monkeypatch.setattr(integration, "_clean_log", lambda value, **_: value)
    callback = WandB(study_of(store, "wandb"), tmp_path, dict, lambda config: {"seed": config["seed"]})
    trial = Mock(trial_id="t0", config={"seed": 3, "lr": 1e-3})
    result = {"env_steps": 200, "evaluated_at": 100, "report": {"eval/return": 5.0, "train/loss": 1.0}}
    callback.log_trial_result(1, trial, result)
    assert (started["project"], started["group"], started["id"]) == ("exp", "toy", f"{uid}-t0")
    assert (started["name"], started["resume"]) == ("seed=3", "allow")
    assert started["config"] == {"seed": 3, "lr": 1e-3}
    callback.on_experiment_end([trial])
    assert sent == [
        ("RESULT", {"eval/return": 5.0, "train/loss": 1.0, "eval/env_steps": 100, "training_iteration": 200}),
        ("END", None),
    ]
