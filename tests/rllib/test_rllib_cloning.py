"""Demonstrations in three phases, as MoDem has them: cloned, acted by, and mixed in with a falling share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from tdmpc_ray.datasets.episode import EpisodeRecord
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2Config, TDMPCConfig

GAINS = np.array([0.0, -0.6, -0.05], np.float32)
SHARE = {"linear": [0.75, 0.25, 100]}


def shown_action(obs: np.ndarray) -> np.ndarray:
    return np.clip(obs @ GAINS, -1, 1)[..., None]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes of a policy that is linear in the observation."""
    folder = tmp_path_factory.mktemp("shown")
    env = gymnasium.make("Pendulum-v1")
    for number in range(3):
        obs, _ = env.reset(seed=number)
        record, over = EpisodeRecord(obs), False
        while not over:
            action = shown_action(obs)
            obs, reward, _, over, _ = env.step(2 * action)
            record.add(obs, action, float(reward))
        record.save(folder / f"{number}.npz", terminated=False, task="")
    return folder


def config(make: Any, shown: Path, overrides: dict[str, Any], **more: Any) -> Any:
    settings = {
        **overrides,
        "data.demonstrations": str(shown),
        "data.cloning": True,
        "data.cloning_updates": 400,
        "data.demonstration_share": SHARE,
        "data.seed_steps": 200,
        "data.capacity": 2000,
        "update.batch_size": 32,
        "update.lr": 1e-3,
        "model.episodic": False,
        **more,
    }
    made = make().environment("gym:Pendulum-v1").debugging(seed=0, log_level="ERROR")
    made.training(steps_per_iteration=201, max_time_s_per_iteration=600)
    return made.training(model_size="tiny", overrides=settings, total_steps=401)


def networks_of(algo: Any) -> dict[str, torch.Tensor]:
    module = algo.learner_group._learner.module[DEFAULT_MODULE_ID].unwrapped()
    return {name: value.clone() for name, value in module.networks.state_dict().items()}


@pytest.mark.parametrize("make", [TDMPC2Config, TDMPCConfig])
def test_the_clone_acts_before_the_first_update_and_demonstrations_fade(
    make: Any, shown: Path, tmp_path: Path, tiny_overrides: dict[str, Any]
) -> None:
    algo = config(make, shown, tiny_overrides).build_algo()
    cloned = algo.train()
    report = cloned["report"]
    assert (cloned["env_steps"], cloned["grad_updates"], cloned["cloning"]) == (0, 0, 0)
    assert report["bc/updates"] == 400
    assert cloned["notes"] == ["400 updates have cloned the demonstrations"]
    learner = algo.learner_group._learner
    networks = learner._rl_module.networks
    if (target := getattr(networks, "target", None)) is not None:
        assert torch.equal(next(iter(target.parameters())), next(iter(networks.online.parameters())))
    obs = learner._loop._demonstrations.obs[:600]
    agent = learner._rl_module.agent
    with torch.no_grad():
        mean = agent.policy_mean(networks, agent.encode(networks, torch.from_numpy(obs)))
    assert np.abs(mean.numpy() - shown_action(obs)).mean() < 0.1

    # The steps before the first update are the clone's.
    loop = learner._loop
    sizes: list[int] = []
    draw = loop._demonstrations.sample
    loop._demonstrations.sample = lambda num, *args: (sizes.append(num), draw(num, *args))[1]
    result = algo.train()
    assert (result["env_steps"], result["grad_updates"]) == (201, 201)
    replay = learner.replay
    rows = np.flatnonzero(replay.next_row[:200] >= 0)
    error = replay.action[rows] - shown_action(replay.obs[rows])
    assert np.abs(error).mean() < 0.15
    assert (sizes[0], sizes[50], sizes[100], sizes[200]) == (24, 16, 8, 8)
    assert "bc/updates" not in result["report"]
    algo.stop()


def test_a_run_goes_on_in_the_middle_of_cloning(
    shown: Path, tmp_path: Path, tiny_overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(seconds: float) -> Any:
        made = config(TDMPC2Config, shown, tiny_overrides, **{"data.cloning_updates": 60})
        return made.training(max_time_s_per_iteration=seconds).build_algo()

    whole = build(600)
    whole.train()
    expected = networks_of(whole)
    whole.stop()
    half = build(0)  # an iteration is one call
    result = half.train()
    assert (result["cloning"], result["report"]["bc/updates"]) == (35, 25)
    half.save_to_path(tmp_path / "half")
    half.stop()
    again = build(600)
    again.restore_from_path(tmp_path / "half")
    assert again.train()["report"]["bc/updates"] == 60
    found = networks_of(again)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    again.save_to_path(tmp_path / "cloned")
    steps = again.train()
    again.stop()
    later = build(600)
    later.restore_from_path(tmp_path / "cloned")
    assert later.progress.cloning_left == 0
    assert later.train()["env_steps"] == steps["env_steps"]
    first, second = networks_of(later), networks_of(again)
    assert all(torch.equal(first[name], value) for name, value in second.items())
    later.stop()


def test_demonstrations_of_a_prioritised_replay_have_priorities(
    shown: Path, tiny_overrides: dict[str, Any]
) -> None:
    settings = {"data.cloning": False, "data.cloning_updates": None, "data.priority_alpha": 0.6}
    algo = config(TDMPC2Config, shown, tiny_overrides, **settings).build_algo()
    algo.train()
    replays = (algo.learner_group._learner.replay, algo.learner_group._learner._loop._demonstrations)
    assert all(len(np.unique(replay.priorities)) > 50 for replay in replays)
    algo.stop()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.demonstrations": ""}, "data.cloning needs data.demonstrations to imitate"),
        ({"data.cloning_updates": 0}, "data.cloning_updates must be positive"),
        ({"data.demonstration_share": {"linear": [1.0, 0.2, 10]}}, "must lie between 0 and 1"),
        (
            {"data.seed_steps": {"linear": [1, 2, 3]}},
            "only numbers of the planner and data.demonstration_share",
        ),
        (
            {"data.demonstration_share": {"linear": [0.5, 0.001, 10]}},
            "data.demonstration_share=0.001 of .* none",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    shown: Path, tiny_overrides: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        config(TDMPC2Config, shown, tiny_overrides, **changes).validate()


def test_a_run_that_begins_with_networks_clones_none(
    shown: Path, tmp_path: Path, tiny_overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config(TDMPC2Config, shown, tiny_overrides)
    monkeypatch.setattr("tdmpc_ray.rllib.config_checks.find_checkpoint", lambda path: path)
    with pytest.raises(UserError, match=r"data\.cloning imitates .* and start_from brings networks"):
        made.training(start_from=str(tmp_path)).validate()
