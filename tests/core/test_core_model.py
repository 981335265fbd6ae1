"""Sizes, cost and configuration of the model."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import MODEL_SIZES, AgentConfig, ModelConfig, agent_config
from tdmpc_ray.core.cost import plan_flops, update_flops
from tdmpc_ray.core.planner import ModelFunctions
from tdmpc_ray.core.update import UpdateNoise, Updater
from tdmpc_ray.core.world_model import WorldModel
from tdmpc_ray.errors import UserError


def numel(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_published_parameter_counts_of_every_component() -> None:
    """mt80 at size 5: the task embedding widens every input by 96, here as observation and latent columns."""
    task_dim, hidden = 96, 512
    model = WorldModel(39, 6, agent_config("5").model)
    # The embedding adds task_dim columns to the first layer of each component, and of each head.
    assert numel(model.encoder) + task_dim * 256 == 167_936
    assert numel(model.dynamics) + task_dim * hidden == 843_264
    assert numel(model.reward_head) + task_dim * hidden == 631_397
    assert numel(model.policy) + task_dim * hidden == 582_668
    assert numel(model.q_ensemble) + 5 * task_dim * hidden == 3_156_985
    total = model.num_params() + task_dim * (256 + 8 * hidden) + 80 * task_dim
    assert total == 5_389_930


@pytest.mark.parametrize(
    ("size", "published"),
    [("1", 1_435_067), ("5", 5_389_930), ("19", 18_970_218), ("48", 48_791_146), ("317", 317_383_129)],
)
def test_published_totals_of_every_size(size: str, published: int) -> None:
    """mt80 totals: our single-task model plus what 80 task embeddings of 96 add."""
    cfg = agent_config(size).model
    with torch.device("meta"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorldModel, "_init_weights", lambda self: None)
        model = WorldModel(39, 6, cfg, target=False)
    first_layers = cfg.enc_dim + (3 + cfg.num_q) * cfg.mlp_dim
    assert model.num_params() + 96 * (first_layers + 80) == published


def test_target_heads_start_equal_and_are_not_trained() -> None:
    model = WorldModel(5, 2, agent_config("tiny").model)
    assert model.target_q is not None
    for ours, theirs in zip(model.q_ensemble.parameters(), model.target_q.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert not theirs.requires_grad
    assert WorldModel(5, 2, agent_config("tiny").model, target=False).target_q is None


def test_initial_rewards_and_values_are_zero() -> None:
    model = WorldModel(5, 2, agent_config("tiny").model).eval()
    z, action = model.encode(torch.randn(7, 5)), torch.rand(7, 2)
    assert model.reward(z, action).abs().max() < 1e-4
    assert model.q(z, action, torch.tensor([0, 1])).abs().max() < 1e-4
    assert model.encoder[0].weight.abs().max() <= 2.0
    assert 0.015 < model.dynamics[1].weight.std() < 0.025


@pytest.mark.parametrize("episodic", [False, True])
def test_counted_flops_are_those_that_run(episodic: bool) -> None:
    agent = agent_config("5", "light", {"model.episodic": episodic, "update.batch_size": 16})
    model = WorldModel(24, 6, agent.model)
    noise = UpdateNoise.sample(model, 3, 16, torch.Generator())
    batch = Batch(torch.randn(4, 16, 24), torch.rand(3, 16, 6), torch.rand(3, 16, 1), torch.zeros(3, 16, 1))
    with FlopCounterMode(display=False) as counter:
        Updater(model, agent.update, 0.99).step(batch, noise)
    assert counter.get_total_flops() == pytest.approx(update_flops(model, agent.update, 3), rel=0.05)

    cfg = agent.planner
    functions = ModelFunctions(model.eval())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        z = model.encode(torch.randn(1, 24))
        for _ in range(cfg.iterations):
            _, last, _ = functions.rollout(z, torch.rand(3, 1, cfg.num_samples, 6), 0.99)
            functions.terminal_value(last, torch.randn(1, cfg.num_samples, 6), torch.tensor([0, 1]))
        functions.policy_rollout(z, torch.randn(3, 1, cfg.num_pi_trajs, 6))
    assert counter.get_total_flops() == pytest.approx(plan_flops(model, cfg), rel=0.01)


def test_published_defaults_and_discount() -> None:
    agent = agent_config("5")
    assert (agent.planner.num_iterations(6), agent.planner.num_iterations(20)) == (6, 8)
    assert agent.update.discount(500) == pytest.approx(0.99)
    assert agent.update.discount(100) == pytest.approx(0.95)
    assert agent.update.discount(5000) == pytest.approx(0.995)
    assert (agent.data.num_seed_steps(500), agent.data.num_seed_steps(100)) == (2500, 1000)
    assert agent_config("5", overrides={"data.seed_steps": 7}).data.num_seed_steps(500) == 7
    assert AgentConfig.from_dict(agent.to_dict()) == agent


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_size": "6"}, "unknown model size '6': choose one of: tiny, 1, 5, 19, 48, 317"),
        ({"preset": "lite"}, "unknown preset 'lite': did you mean 'light'?"),
        ({"overrides": {"update.rl": 1}}, "unknown setting 'update.rl': did you mean 'update.lr'?"),
        ({"overrides": {"horizon": 1}}, "unknown setting 'horizon': did you mean 'planner.horizon'?"),
        ({"overrides": {"update.lr": "fast"}}, "update.lr='fast' is not a valid value: expected float"),
        ({"overrides": {"update.lr": -1}}, "update.lr must be positive, not -1.0"),
        ({"overrides": {"planner.horizon": 2.5}}, "planner.horizon=2.5 is not a valid value: expected int"),
        ({"overrides": {"planner.enabled": 1}}, "planner.enabled=1 is not a valid value: expected bool"),
        ({"overrides": {"update.lr": float("nan")}}, "update.lr=nan is not a valid value: expected float"),
        (
            {"overrides": {"planner.num_elites": 999}},
            "planner.num_elites must not exceed planner.num_samples",
        ),
        ({"overrides": {"model.latent_dim": 20}}, "model.latent_dim must be a multiple of model.simnorm_dim"),
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
    assert agent.model == ModelConfig(**MODEL_SIZES["1"])
