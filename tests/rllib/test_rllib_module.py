"""The RLModule: whose plan warms whose next one, and what it refuses."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from counting_env import CountingEnv
from ray.rllib.core.columns import Columns

from tdmpc_ray.core.agents.tdmpc2.functions import plan
from tdmpc_ray.core.config import PLANNERS, agent_config
from tdmpc_ray.core.nn.pixels import shift_images
from tdmpc_ray.core.planners import PlanNoise
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.rllib.acting.env_runner import AgentEnvRunner
from tdmpc_ray.rllib.acting.module import IS_FIRST, AgentModule

OBS, ACTION = gymnasium.spaces.Box(-1, 1, (5,)), gymnasium.spaces.Box(-1, 1, (2,))


def make_module(tiny_overrides: dict[str, Any]) -> AgentModule:
    agent = agent_config("tiny", overrides=tiny_overrides)
    model_config = {"agent": agent.to_dict(), "discount": 0.9, "seed": 0}
    return AgentModule(observation_space=OBS, action_space=ACTION, model_config=model_config)


@pytest.fixture
def module(tiny_overrides: dict[str, Any]) -> AgentModule:
    torch.manual_seed(0)
    module = make_module(tiny_overrides)
    with torch.no_grad():  # a new model values every action alike
        module.networks.reward_head[-1].weight.normal_(std=0.3)
    return module.eval()


def test_a_plan_begins_with_the_last_one_of_its_environment_or_anew(module: AgentModule) -> None:
    module.seed(0)
    obs = torch.randn(2, 2, 5)
    module.act(obs[0], torch.tensor([True, True]), explore=True)
    action = module.act(obs[1], torch.tensor([False, True]), explore=True)

    generator, model, cfg = torch.Generator().manual_seed(0), module.networks, module.cfg.planner
    mean = torch.zeros(2, cfg.horizon, 2)
    for step in range(2):
        mean[1] = 0.0  # the second environment was reset at both steps
        noise = PlanNoise.sample(model, cfg, 2, generator)
        z = model.encode(obs[step])
        expected, mean, *_ = plan(model, z, mean, cfg, noise, discount=0.9, explore=True)
    assert torch.equal(action, expected)
    assert mean.abs().sum() > 0


def test_images_are_seen_shifted_where_that_is_asked_for(tiny_overrides: dict[str, Any]) -> None:
    overrides = {**tiny_overrides, "planner.method": "policy", "planner.shift_images": True}
    images = gymnasium.spaces.Box(0, 255, (9, 64, 64), np.uint8)
    model_config = {"agent": agent_config("tiny", overrides=overrides).to_dict(), "discount": 0.9, "seed": 0}
    module = AgentModule(observation_space=images, action_space=ACTION, model_config=model_config).eval()
    module.seed(0)
    obs, is_first = torch.randint(256, (2, 9, 64, 64), dtype=torch.uint8), torch.ones(2, dtype=torch.bool)
    action = module.act(obs, is_first, explore=False)
    model, generator = module.networks, torch.Generator().manual_seed(0)
    noise = PlanNoise.sample(model, module.cfg.planner, 2, generator)
    assert noise.shift is not None
    seen = model.encode(shift_images(obs, noise.shift))
    assert torch.equal(action, model.pi(seen, noise.explore).mean)
    assert not torch.equal(action, model.pi(model.encode(obs), noise.explore).mean)


@pytest.mark.parametrize("method", PLANNERS)
def test_every_planner_acts(method: str, tiny_overrides: dict[str, Any]) -> None:
    module = make_module({**tiny_overrides, "planner.method": method}).eval()
    for is_first in (True, False):
        action = module.act(torch.randn(2, 5), torch.full((2,), is_first), explore=True)
        assert action.shape == (2, 2)
        assert action.abs().max() <= 1


def test_evaluation_acts_without_exploration_noise(module: AgentModule) -> None:
    batch = {Columns.OBS: torch.randn(3, 5), IS_FIRST: torch.ones(3, dtype=torch.bool)}
    module.count_updates(1)
    actions = {}
    for name in ("_forward_inference", "_forward_exploration"):
        module.seed(0)
        actions[name] = getattr(module, name)(batch)[Columns.ACTIONS]
    module.seed(0)
    quiet = module.act(batch[Columns.OBS], batch[IS_FIRST], explore=False)
    assert torch.equal(actions["_forward_inference"], quiet)
    assert not torch.allclose(actions["_forward_exploration"], quiet)


def test_without_is_first_it_says_what_to_do(module: AgentModule) -> None:
    with pytest.raises(UserError, match=r"needs 'is_first'.*load_agent"):
        module.forward_inference({Columns.OBS: torch.zeros(1, 5)})


@pytest.mark.parametrize(
    ("name", "space"),
    [("action", gymnasium.spaces.Discrete(3)), ("observation", gymnasium.spaces.Box(0, 1, (3, 64, 64)))],
)
def test_spaces_that_are_no_vectors_are_refused(name: str, space: gymnasium.Space) -> None:
    spaces = {"observation_space": OBS, "action_space": ACTION, f"{name}_space": space}
    agent = agent_config("tiny").to_dict()
    with pytest.raises(UserError, match=f"needs a Box vector of floats as its {name} space"):
        AgentModule(**spaces, model_config={"agent": agent, "discount": 0.9, "seed": 0})


@pytest.mark.usefixtures("local_ray")
def test_is_first_marks_exactly_the_first_step_of_each_episode(
    tmp_path: Path, tiny_overrides: dict[str, Any]
) -> None:
    """In four environments with unsynchronised resets, across fragments."""
    config = TDMPC2Config().environment(CountingEnv, env_config={})
    config.training(model_size="tiny", overrides=tiny_overrides, episode_length=12)
    config.env_runners(num_envs_per_env_runner=4).debugging(seed=0, log_level="ERROR")
    runner = AgentEnvRunner(config=config, worker_index=0)
    module, seen = runner.module.unwrapped(), []
    module.count_updates(1)
    act = module.act

    def spy(
        obs: torch.Tensor, is_first: torch.Tensor, task_id: None, *, explore: bool, **others: Any
    ) -> torch.Tensor:
        seen.append((obs[:, :2].clone(), is_first.clone()))
        return act(obs, is_first, task_id, explore=explore, **others)

    module.act = spy
    fragments = [episode for _ in range(12) for episode in runner.sample(num_timesteps=20)]
    acted_in = {(obs[0], obs[1]) for e in fragments for obs in e.get_observations()[:-1]}
    runner.stop()
    firsts = 0
    for obs, is_first in seen:
        for (episode, step), first in zip(obs.tolist(), is_first.tolist(), strict=True):
            if (episode, step) in acted_in:  # not the step in which Gymnasium resets, whose action is dropped
                assert first == (step == 0)
                firsts += first
    assert firsts >= 20
    assert np.ptp([obs[:, 1].numpy() for obs, _ in seen], axis=1).max() > 0


def test_a_seeded_run_does_not_fill_the_memory_it_reserves(tiny_overrides: dict[str, Any]) -> None:
    torch.utils.deterministic.fill_uninitialized_memory = True  # PyTorch's default
    torch.use_deterministic_algorithms(True)  # as RLlib asks for
    try:
        make_module(tiny_overrides)
        assert not torch.empty(1000).isnan().all()
    finally:
        torch.use_deterministic_algorithms(False)
