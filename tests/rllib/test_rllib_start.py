"""Networks to begin with: half of them are not taken without a word."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from counting_env import CountingEnv

from tdmpc_ray.core.agents.tdmpc2.agent import AGENT
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.rllib.acting.module import AgentModule
from tdmpc_ray.rllib.checkpoints.algorithm_checkpoint import DurableAlgorithm
from tdmpc_ray.rllib.checkpoints.load import MODULE
from tdmpc_ray.rllib.checkpoints.manifest import seal
from tdmpc_ray.rllib.learning.start_networks import (
    check_networks,
    read_networks,
    state_for,
)
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.run.checks import prepare

HEAD = "networks.termination_head.0.weight"


class Wide(CountingEnv):
    """With more to see and to do."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)


def config_of(overrides: dict[str, Any], env: type[CountingEnv] = CountingEnv, **more: Any) -> TDMPC2Config:
    config = TDMPC2Config().environment(env)
    config.training(model_size="tiny", overrides={**overrides, **more}, episode_length=12)
    return config.debugging(seed=0, log_level="ERROR")


def saved(config: TDMPC2Config, folder: Path) -> Path:
    """A checkpoint of networks alone."""
    return save_module(config.env({}), config, folder)


def save_module(env: gymnasium.Env, config: TDMPC2Config, folder: Path, updates: int = 1) -> Path:
    module = AgentModule(
        observation_space=env.observation_space,
        action_space=env.action_space,
        model_config=config.model_config,
    )
    module.grad_updates += updates
    module.save_to_path(str(folder / MODULE))
    seal(folder)
    return folder


@pytest.mark.parametrize(
    ("theirs", "ours", "env", "differs"),
    [
        (
            {"model.num_enc_layers": 3},
            {},
            CountingEnv,
            r"encoder\.2\.weight is \(16, 16\) in .* and missing here",
        ),
        ({}, {"model.num_enc_layers": 3}, CountingEnv, r"encoder\.2\.weight is missing in start_from and"),
        (
            {"model.episodic": True},
            {},
            CountingEnv,
            r"termination_head\.\S+ is \S+ .*in start_from and missing",
        ),
        ({}, {"model.simnorm_dim": 0}, CountingEnv, r"encoder\.1\.ln\.\S+ is \(16,\) in .* and missing here"),
        (
            {"model.simnorm_dim": 0},
            {},
            CountingEnv,
            r"encoder\.1\.ln\.\S+ is missing in start_from and \(16,\)",
        ),
        ({}, {"model.mlp_dim": 32}, CountingEnv, r"dynamics\.0\.weight is \(16, 17\) .* \(32, 17\) here"),
        ({}, {}, Wide, r"encoder\.0\.weight is \(16, 3\) in start_from and \(16, 4\) here"),
        ({}, {}, Wide, r"dynamics\.0\.weight is \(16, 17\) in start_from and \(16, 18\) here"),
    ],
    ids=["layers", "layer", "no end", "no simnorm", "simnorm", "size", "observation", "action"],
)
def test_networks_of_another_shape_are_refused_before_anything_starts(
    theirs: dict[str, Any],
    ours: dict[str, Any],
    env: type[CountingEnv],
    differs: str,
    tmp_path: Path,
    tiny_overrides: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def started(*args: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(DurableAlgorithm, "setup", started)
    config = config_of(tiny_overrides, env, **ours)
    config.training(start_from=saved(config_of(tiny_overrides, **theirs), tmp_path))
    with pytest.raises(UserError, match=f"of start_from do not fit this model: .*{differs}") as caught:
        config.build_algo()
    assert str(caught.value).count(" here") <= 3


def test_only_a_termination_head_may_be_missing_and_that_is_said(
    tmp_path: Path, tiny_overrides: dict[str, Any], local_ray: None
) -> None:
    checkpoint = saved(config_of(tiny_overrides), tmp_path)
    config = config_of(tiny_overrides, **{"model.episodic": True}).training(start_from=checkpoint)
    algo = config.training(steps_per_iteration=5).build_algo()
    own, given = algo.learner_group._learner.module["default_policy"].state_dict(), read_networks(checkpoint)
    assert all(torch.equal(own[key], value) for key, value in given.state.items())
    assert own[HEAD].abs().sum() > 0
    (note,) = algo.train()["notes"]
    assert note.startswith("the networks of start_from have no termination head")
    algo.stop()
    assert check_networks(given, [config_of(tiny_overrides)]) == []


def test_a_study_compares_every_model_that_it_trains(tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
    values = {"name": "s", "task": "gym:Pendulum-v1", "steps": 2000, "start_from": str(tmp_path)}
    values |= {"model_sizes": ["tiny"], "set": dict(tiny_overrides)}
    config = TDMPC2Config().environment("gym:Pendulum-v1")
    config.training(model_size="tiny", overrides=tiny_overrides)
    config.env = lambda _: gymnasium.make("Pendulum-v1")
    saved(config, tmp_path)
    assert prepare(make_study(values)).plan.requests
    with pytest.raises(UserError, match=r"encoder\.2\.weight is missing in start_from"):
        prepare(make_study({**values, "space": {"model.num_enc_layers": {"grid": [2, 3]}}}))


def test_where_remote_runners_alone_can_build_the_environment_the_learner_compares(
    tmp_path: Path, tiny_overrides: dict[str, Any]
) -> None:
    def build(config: Any) -> gymnasium.Env:
        raise OSError("no simulator here")

    given = read_networks(saved(config_of(tiny_overrides), tmp_path))
    config = config_of(tiny_overrides, build)
    with pytest.raises(UserError, match="cannot be built: OSError: no simulator here"):
        check_networks(given, [config])
    assert check_networks(given, [config.env_runners(num_env_runners=1)]) == []
    with pytest.raises(UserError, match=r"encoder\.0\.weight is \(16, 3\) in start_from and \(16, 4\) here"):
        state_for(given, AGENT.make_networks((4,), 1, config.agent().model), config)
