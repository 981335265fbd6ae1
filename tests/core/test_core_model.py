"""Sizes, cost and configuration of the model."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tdmpc_ray.core.agents.tdmpc2 import functions
from tdmpc_ray.core.agents.tdmpc2.config import MODEL_SIZES
from tdmpc_ray.core.agents.tdmpc2.cost import plan_flops, update_flops
from tdmpc_ray.core.agents.tdmpc2.functions import plan
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.batch import Batch, ImageAndVector
from tdmpc_ray.core.config import AgentConfig, agent_config
from tdmpc_ray.core.nn.layers import EnsembleLinear
from tdmpc_ray.core.planners import PlanNoise
from tdmpc_ray.errors import UserError


def numel(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def mt80(size: str) -> WorldModel:
    """The published model of all 80 tasks: their largest observation and action."""
    with torch.device("meta"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorldModel, "_init_weights", lambda self: None)
        return WorldModel((39,), 6, agent_config(size).model, action_dims=[6] * 80, target=False)


def test_published_parameter_counts_of_every_component() -> None:
    model = mt80("5")
    assert numel(model.encoder) == 167_936
    assert numel(model.dynamics) == 843_264
    assert numel(model.reward_head) == 631_397
    assert numel(model.policy) == 582_668
    assert numel(model.q_ensemble) == 3_156_985
    assert model.task_embedding.numel() == 7_680


@pytest.mark.parametrize(
    ("size", "published"),
    [("1", 1_435_067), ("5", 5_389_930), ("19", 18_970_218), ("48", 48_791_146), ("317", 317_383_129)],
)
def test_published_totals_of_every_size(size: str, published: int) -> None:
    assert mt80(size).num_params() == published


def test_target_heads_start_equal_and_are_not_trained() -> None:
    model = WorldModel((5,), 2, agent_config("tiny").model)
    assert model.target_q is not None
    for ours, theirs in zip(model.q_ensemble.parameters(), model.target_q.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert not theirs.requires_grad
    assert WorldModel((5,), 2, agent_config("tiny").model, target=False).target_q is None


def test_initial_rewards_and_values_are_zero() -> None:
    model = WorldModel((5,), 2, agent_config("tiny").model).eval()
    z, action = model.encode(torch.randn(7, 5)), torch.rand(7, 2)
    assert model.reward(z, action).abs().max() < 1e-4
    assert model.q(z, action, torch.tensor([0, 1])).abs().max() < 1e-4


def test_initial_weights_have_the_published_spread() -> None:
    """0.02 everywhere, in the stacked heads too: ten times as much makes values diverge."""
    model = WorldModel((24,), 6, agent_config("1").model)
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Linear, EnsembleLinear)):
            std = module.weight.std()
            is_zero = name in ("reward_head.2", "q_ensemble.layers.2", "target_q.layers.2")
            assert std == 0 if is_zero else 0.018 < std < 0.022, name
            assert module.bias.abs().max() == 0, name


@pytest.mark.parametrize("kind", ["plain", "episodic", "multitask", "pixels", "two parts"])
def test_counted_flops_are_those_that_run(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = agent_config("5", "light", {"model.episodic": kind == "episodic", "update.batch_size": 16})
    obs_shape = (9, 64, 64) if kind in ("pixels", "two parts") else (24,)
    vector_dim = 7 if kind == "two parts" else 0
    tasks = 2 if kind == "multitask" else 0
    model = WorldModel(obs_shape, 6, agent.model, action_dims=[6] * tasks or None, vector_dim=vector_dim)
    noise = UpdateNoise.sample(model, 3, 16, torch.Generator())
    obs, task_id = torch.randn(4, 16, *obs_shape), torch.randint(2, (16,)) if tasks else None
    vector = torch.randn(4, 16, 7) if vector_dim else None
    rest = (torch.rand(3, 16, 6), torch.rand(3, 16, 1), torch.zeros(3, 16, 1), task_id)
    batch = Batch(obs, *rest, vector=vector)
    with FlopCounterMode(display=False) as counter:
        Updater(model, agent.update, [0.99] * tasks if tasks else 0.99).step(batch, noise)
    assert counter.get_total_flops() == pytest.approx(update_flops(model, agent.update, 3), rel=0.02)

    model = model.eval()
    one = model.task(None if task_id is None else task_id[:1])
    noise = PlanNoise.sample(model, agent.planner, 1, torch.Generator())
    monkeypatch.setattr(functions, "fused_model", lambda *_: None)  # the counter does not see into kernels
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        seen = obs[0, :1] if vector is None else ImageAndVector(obs[0, :1], vector[0, :1])
        z, prev_mean = model.encode(seen, one), torch.zeros(1, 3, 6)
        plan(model, z, prev_mean, agent.planner, noise, discount=0.99, explore=False, task=one)
    assert counter.get_total_flops() == pytest.approx(plan_flops(model, agent.planner), rel=0.01)


def test_published_defaults_and_discount() -> None:
    agent = agent_config("5")
    assert (agent.planner.num_iterations(6), agent.planner.num_iterations(20)) == (6, 8)
    assert agent.update.discount(500) == pytest.approx(0.99)
    assert agent.update.discount(100) == pytest.approx(0.95)
    assert agent.update.discount(5000) == pytest.approx(0.995)
    assert (agent.data.num_seed_steps(500), agent.data.num_seed_steps(100)) == (2500, 1000)
    assert agent_config("5", overrides={"data.seed_steps": 7}).data.num_seed_steps(500) == 7
    assert (agent.data.num_seed_steps(500, 30), agent.data.num_seed_steps(100, 2)) == (75_000, 1000)
    assert AgentConfig.from_dict(agent.to_dict()) == agent


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_size": "6"}, f"unknown model size '6': choose one of: {', '.join(MODEL_SIZES)}"),
        ({"preset": "lite"}, "unknown preset 'lite': did you mean 'light'?"),
        ({"overrides": {"update.rl": 1}}, "unknown setting 'update.rl': did you mean 'update.lr'?"),
        ({"overrides": {"horizon": 1}}, "unknown setting 'horizon': did you mean 'planner.horizon'?"),
        ({"overrides": {"update.lr": "fast"}}, "update.lr='fast' is not a valid value: expected float"),
        ({"overrides": {"update.lr": -1}}, "update.lr must be positive, not -1.0"),
        ({"overrides": {"planner.horizon": 2.5}}, "planner.horizon=2.5 is not a valid value: expected int"),
        ({"overrides": {"model.episodic": 1}}, "model.episodic=1 is not a valid value: expected bool"),
        ({"overrides": {"planner.method": "ppi"}}, "unknown planner.method 'ppi': did you mean 'mppi'?"),
        ({"overrides": {"planner.method": 1}}, "planner.method=1 is not a valid value: expected str"),
        ({"overrides": {"update.lr": float("nan")}}, "update.lr=nan is not a valid value: expected float"),
        (
            {"overrides": {"planner.num_elites": 999}},
            "planner.num_elites must not exceed planner.num_samples",
        ),
        ({"overrides": {"model.latent_dim": 20}}, "model.latent_dim must be a multiple of model.simnorm_dim"),
        (
            {"overrides": {"model.simnorm_dim": -8}},
            "model.simnorm_dim must not be negative",
        ),
        ({"overrides": {"model.num_bins": 0}}, "model.num_bins must be positive, not 0"),
    ],
)
def test_bad_settings_are_refused_with_the_fix(arguments: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        agent_config(**arguments)
    assert str(caught.value) == message


def test_settings_take_what_yaml_and_the_command_line_give() -> None:
    agent = agent_config(
        1, "light", {"update.lr": "1e-3", "planner.num_samples": 64.0, "data.seed_steps": None}
    )
    assert agent.update.lr == 1e-3
    assert agent.planner.num_samples == 64
    assert agent.data.seed_steps is None
    assert agent.model == MODEL_SIZES["1"]
