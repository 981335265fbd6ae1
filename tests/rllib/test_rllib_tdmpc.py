"""TD-MPC on the dataflow of all agents: trained, saved, restored and played; what it lacks is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC, TDMPCConfig, evaluate_checkpoint, load_agent
from tdmpc_ray.rllib.checkpoints.load import load_module

SETTINGS = {
    "data.seed_steps": 150,
    "data.capacity": 2000,
    "planner.horizon": {"linear": [1, 3, 400]},
    "planner.num_samples": 40,
    "planner.num_elites": 8,
    "planner.num_pi_trajs": 8,
    "planner.iterations": 2,
    "update.batch_size": 32,
    "model.episodic": False,
}


def config() -> TDMPCConfig:
    made = TDMPCConfig().environment("gym:Pendulum-v1").debugging(seed=0, log_level="ERROR")
    made.training(steps_per_iteration=201, max_time_s_per_iteration=600)
    return made.training(model_size="tiny", overrides=SETTINGS, total_steps=401)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run that was saved after an odd number of updates, restored, and went on."""
    folder = tmp_path_factory.mktemp("tdmpc")
    algo = config().build_algo()
    assert isinstance(algo, TDMPC)
    first = algo.train()
    assert (first["env_steps"], first["grad_updates"]) == (201, 201)
    assert first["report"]["train/td_error"] > 0
    algo.save_to_path(folder / "half")
    algo.stop()
    algo = config().build_algo()
    algo.restore_from_path(folder / "half")
    learner = algo.learner_group._learner
    assert int(learner._updater.updates) == 201, "whether the target moves next is kept"
    assert type(learner.replay).__name__ == "PrioritizedReplay"
    assert len(np.unique(learner.replay.priorities)) > 50
    module = algo.env_runner_group.local_env_runner.module.unwrapped()
    assert module.cfg.planner.at(module.num_updates).horizon == 2, "schedules go on where they were"
    report = algo.train()["report"]
    algo.save_to_path(folder / "whole")
    algo.stop()
    assert (report["time/env_steps"], report["time/grad_updates"]) == (401, 401)
    return folder / "whole"


def test_it_is_evaluated_and_acts(checkpoint: Path) -> None:
    assert len(evaluate_checkpoint(checkpoint, 1, seed=1)["returns"]) == 1
    module = load_module(checkpoint)
    assert module.cfg.algorithm == "tdmpc"
    action = load_agent(checkpoint).act(np.array([[1.0, 0.0, 0.5]], np.float32), np.array([True]))
    assert action.shape == (1, 1)
    assert abs(float(action[0, 0])) <= 1


def test_what_it_lacks_is_refused_before_anything_starts() -> None:
    with pytest.raises(UserError, match="algorithm tdmpc learns one task: use tdmpc2 for a set"):
        TDMPCConfig().environment("walker-walk+walker-run").validate()
    with pytest.raises(UserError, match="TD-MPC cannot foresee that a task ends"):
        TDMPCConfig().environment("gym:Hopper-v5").validate()


def test_rllibs_discount_is_sent_to_this_agents_own() -> None:
    with pytest.raises(UserError, match=r"does not read 'gamma': set overrides=\{'update.gamma'"):
        TDMPCConfig().environment("walker-walk").training(gamma=0.9).validate()


def test_tasks_have_the_published_settings() -> None:
    def agent(task: str, **changes: str) -> object:
        made = TDMPCConfig().environment(task, obs=changes.get("obs", "state"))
        found = made.training(preset=changes.get("preset", "paper")).agent()
        return found.planner.iterations, found.model.latent_dim, found.update.batch_size, found.update.lr

    assert agent("walker-walk") == (6, 50, 512, 1e-3)
    assert agent("dog-run") == (8, 100, 2048, 3e-4)
    assert agent("humanoid-walk") == (12, 100, 512, 1e-3)
    assert agent("cup-catch", obs="rgb") == (6, 50, 256, 3e-4)
    assert agent("dog-run", preset="light") == (8, 100, 128, 3e-4)
