"""The seam between agents and the rest: a toy is trained, saved, evaluated, served, exported and tuned."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import toy_agent
import yaml
from driver import Driver

from tdmpc_ray.core.export import make_program
from tdmpc_ray.core.saved_agent import read_agent
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import evaluate_checkpoint, load_agent, new_config
from tdmpc_ray.rllib.checkpoints.load import load_module
from tdmpc_ray.serving.sessions import BatchPlanner, Session
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.models.model_files import write_slim

NAME = "toy_agent:AGENT"
SETTINGS = {"data.seed_steps": 200, "data.capacity": 2000, "update.batch_size": 64}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run that was saved, restored, and went on."""
    folder = tmp_path_factory.mktemp("toy")
    config = new_config(NAME).environment("gym:Pendulum-v1").debugging(seed=0, log_level="ERROR")
    config.training(overrides=SETTINGS, total_steps=600, steps_per_iteration=300)
    algo = config.build_algo()
    first = algo.train()
    algo.save_to_path(folder / "half")
    algo.stop()
    assert (first["env_steps"], first["grad_updates"]) == (300, 300)
    algo = config.build_algo()
    algo.restore_from_path(folder / "half")
    report = algo.train()["report"]
    algo.save_to_path(folder / "whole")
    algo.stop()
    assert (report["time/env_steps"], report["time/grad_updates"]) == (600, 600)
    assert 0 < report["train/loss/total"] < first["report"]["train/loss/total"]
    assert report["summary/params_total"] == 4
    return folder / "whole"


def test_it_is_evaluated(checkpoint: Path) -> None:
    played = evaluate_checkpoint(checkpoint, 2, seed=1)
    assert len(played["returns"]) == 2
    module = load_module(checkpoint)
    assert int(module.grad_updates) == 600
    obs = np.array([[1.0, 0.0, 0.5]], np.float32)
    expected = torch.tanh(module.networks.policy(torch.from_numpy(obs))).detach().numpy()
    np.testing.assert_allclose(load_agent(checkpoint).act(obs, np.array([True])), expected, atol=1e-6)


def test_it_is_served_and_exported(checkpoint: Path, tmp_path: Path) -> None:
    write_slim(checkpoint, tmp_path)
    agent = read_agent(tmp_path)
    planner = BatchPlanner(agent, max_batch=2)
    planner.warm_up()
    obs = torch.tensor([1.0, 0.0, 0.5])
    (decision,) = planner([(Session(), obs)])
    module = load_module(checkpoint)
    program = make_program(module.agent, module.networks, module.cfg.planner, 0.97, "policy")
    torch.testing.assert_close(torch.tensor(decision.action), program.module(obs[None])[0].detach())
    with pytest.raises(UserError, match=f"algorithm '{NAME}' has no published checkpoints"):
        module.agent.to_published(module.networks)


def study(store: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": "toys",
        "task": "gym:Pendulum-v1",
        "algorithm": NAME,
        "steps": 400,
        "set": SETTINGS,
        "evaluation": {"every": 200, "episodes": 1},
        "tracking": {"uri": store, "experiment": "exp"},
        **changes,
    }


@pytest.mark.timeout(300)
def test_it_is_tuned_beside_another_agent(store: str, tmp_path: Path, mlflow_read: SimpleNamespace) -> None:
    shutil.copy(toy_agent.__file__, tmp_path)  # a study's own folder is where Python looks first
    both = {
        "algorithm": [NAME, "tdmpc"],
        "model_sizes": ["tiny"],
        "set": {**SETTINGS, "model.episodic": False},
    }
    (tmp_path / "toys.yaml").write_text(yaml.safe_dump(study(store, **both)))
    driver = Driver(tmp_path, "-m", "tdmpc_ray.cli", "tune", "toys.yaml", "--out", "out")
    assert driver.end() == 0, driver.log.read_text()
    trials = [run for name, run in mlflow_read.runs(store, "exp").items() if name != "toys"]
    assert {run.data.params["algorithm"] for run in trials} == {NAME, "tdmpc"}
    assert len({run.data.metrics["summary/params_total"] for run in trials}) == 2
    assert {run.data.metrics["time/grad_updates"] for run in trials} == {400.0}
    assert all("eval/return" in run.data.metrics for run in trials)


TWO = {"algorithm": [NAME, "tdmpc2"], "model_sizes": ["tiny"]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"algorithm": "tdmpc3"}, "unknown algorithm 'tdmpc3': did you mean 'tdmpc'"),
        ({"algorithm": "no_such_module:AGENT"}, "cannot import algorithm 'no_such_module:AGENT'"),
        ({"set": {"model.latent_dim": 8}}, "unknown setting 'model.latent_dim'"),
        ({"model_sizes": ["19"]}, "unknown model size '19'"),
        ({"preset": "light"}, "unknown preset 'light'"),
        (TWO | {"set": {"model.std": 1}}, "unknown setting 'model.std'"),
        ({"algorithm": [NAME, NAME]}, "is there twice"),
        ({"algorithm": "math:pi"}, "algorithm 'math:pi' is no agent"),
        ({"algorithm": ":AGENT"}, "cannot import algorithm ':AGENT'"),
        ({"algorithm": ["tdmpc", "tdmpc2"]}, "the algorithms' defaults differ: name sizes that all"),
    ],
)
def test_its_settings_are_its_own(store: str, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        make_study(study(store, **changes))
