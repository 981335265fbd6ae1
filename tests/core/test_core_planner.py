"""Plans of many environments at once, and planners at the edges of their settings."""

from collections import Counter
from dataclasses import fields, replace

import pytest
import torch
from worlds import Quadratic, world

from tdmpc_ray.core.agents.tdmpc2 import functions
from tdmpc_ray.core.agents.tdmpc2.functions import TorchFunctions, plan
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.config import PLANNERS, PlannerConfig
from tdmpc_ray.core.planners import PlanNoise
from tdmpc_ray.core.planners.contract import draw_heads


@pytest.fixture(params=["fused", "plain"])
def _form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(functions, "fused_model", lambda *_: None)


def noise_of(noise: PlanNoise, env: int) -> PlanNoise:
    """One environment's share."""
    axis = {"pi": 1, "candidates": 2, "value_pi": 1, "gumbel": 0, "explore": 0}
    parts = {f.name: getattr(noise, f.name) for f in fields(noise)}
    return PlanNoise(**{k: x.narrow(axis[k], env, 1) if k in axis else x for k, x in parts.items()})


@pytest.mark.usefixtures("_form")
@pytest.mark.parametrize("episodic", [False, True])
@pytest.mark.parametrize("method", PLANNERS)
def test_each_environment_of_a_batch_gets_the_plan_it_would_get_alone(method: str, episodic: bool) -> None:
    model, cfg = world(**{"model.episodic": episodic, "planner.method": method})
    z = model.encode(torch.randn(3, 5)).detach()
    prev_mean = torch.rand(3, cfg.horizon, 2) * 2 - 1
    noise = PlanNoise.sample(model, cfg, 3, torch.Generator().manual_seed(0))
    actions, means, *_ = plan(model, z, prev_mean, cfg, noise, discount=0.9, explore=True)
    for i in range(3):
        alone = plan(
            model, z[i : i + 1], prev_mean[i : i + 1], cfg, noise_of(noise, i), discount=0.9, explore=True
        )
        # Sums in another order can swap two elites of nearly the same value.
        torch.testing.assert_close(alone[:2], (actions[i : i + 1], means[i : i + 1]), rtol=0, atol=5e-3)


@pytest.mark.usefixtures("_form")
@pytest.mark.parametrize("method", PLANNERS)
def test_environments_of_several_tasks_plan_in_one_batch(method: str) -> None:
    model, cfg = world(action_dims=[2, 1], **{"planner.method": method})
    model.task_embedding.data.normal_()  # as large as one that has learned
    task_id, discount = torch.tensor([1, 0, 1]), torch.tensor([0.5, 0.95, 0.99])
    task, obs = model.task(task_id), torch.randn(3, 5)
    z = model.encode(obs, task).detach()
    prev_mean = torch.rand(3, cfg.horizon, 2) * model.action_masks[task_id].unsqueeze(1)
    noise = PlanNoise.sample(model, cfg, 3, torch.Generator().manual_seed(0))
    actions, means, stds, *_ = plan(
        model, z, prev_mean, cfg, noise, discount=discount, explore=True, task=task
    )
    assert (stds[:, 0, 1] > 0).tolist() == [False, True, False]
    assert (actions[:, 1] != 0).tolist() == [False, True, False]
    assert (means[:, :, 1] != 0).any(1).tolist() == [False, True, False]
    for i in range(3):
        one = slice(i, i + 1)
        alone = plan(
            model,
            z[one],
            prev_mean[one],
            cfg,
            noise_of(noise, i),
            discount=discount[one],
            explore=True,
            task=model.task(task_id[one]),
        )
        torch.testing.assert_close(alone[:2], (actions[one], means[one]), rtol=0, atol=5e-3)


@pytest.mark.usefixtures("_form")
def test_exploration_noise_is_added_on_demand_only() -> None:
    model, cfg = world()
    z, prev_mean = model.encode(torch.randn(2, 5)).detach(), torch.zeros(2, cfg.horizon, 2)
    quiet = PlanNoise.sample(model, cfg, 2, torch.Generator().manual_seed(0))
    loud = replace(quiet, explore=torch.full_like(quiet.explore, 50.0))

    def action(noise: PlanNoise, explore: bool) -> torch.Tensor:
        return plan(model, z, prev_mean, cfg, noise, discount=0.9, explore=explore)[0]

    assert torch.equal(action(loud, False), action(quiet, False))
    assert (action(loud, True) == 1).all()


@pytest.mark.usefixtures("_form")
def test_planning_without_policy_trajectories() -> None:
    model, cfg = world(**{"planner.num_pi_trajs": 0})
    noise = PlanNoise.sample(model, cfg, 2, torch.Generator().manual_seed(0))
    z = model.encode(torch.randn(2, 5)).detach()
    action, mean, *_ = plan(model, z, torch.zeros(2, cfg.horizon, 2), cfg, noise, discount=0.9, explore=True)
    assert action.shape == (2, 2)
    assert mean.isfinite().all()
    assert mean.abs().sum() > 0


def optimum(z: torch.Tensor, goal: torch.Tensor, horizon: int, discount: float) -> torch.Tensor:
    """First action of the best sequence, by the Riccati recursion."""
    value = 1.0  # of |z - goal|^2 that is left
    for _ in range(horizon):
        gain = discount * value / (0.1 + discount * value)
        value = 1.0 + discount * value * (1 - gain)
    return gain * (goal - z)


@pytest.mark.parametrize(
    ("method", "settings", "tolerance"),
    [
        ("mppi", {"num_samples": 512, "num_elites": 64, "iterations": 12}, 0.04),
        ("cem", {"num_samples": 512, "num_elites": 32, "iterations": 12}, 0.04),
        ("gradient", {"num_pi_trajs": 4, "gradient_steps": 100}, 0.01),
    ],
)
def test_planners_find_the_optimum_of_a_quadratic_problem(
    method: str, settings: dict, tolerance: float
) -> None:
    goal, z = torch.tensor([0.3, -0.2]), torch.tensor([[0.0, 0.0], [0.5, 0.4], [-0.3, 0.1]])
    model, cfg = Quadratic(goal), PlannerConfig(**{"method": method, "min_std": 0.01, **settings})
    prev_mean, generator = torch.zeros(3, cfg.horizon, 2), torch.Generator().manual_seed(0)
    for _ in range(3):  # each decision begins with the last one's plan
        noise = PlanNoise.sample(model, cfg, 3, generator)
        _, prev_mean, std, values, _ = plan(model, z, prev_mean, cfg, noise, discount=0.9, explore=False)
    torch.testing.assert_close(prev_mean[:, 0], optimum(z, goal, cfg.horizon, 0.9), rtol=0, atol=tolerance)
    assert std.shape == (3, cfg.horizon, 2)
    assert (values[:, 0] == values.amax(1)).all()
    untouched = all(parameter.grad is None for parameter in model.parameters())
    assert untouched


def test_acting_by_the_policy_alone_ignores_model_and_plan() -> None:
    model, cfg = world(**{"planner.method": "policy"})
    noise = PlanNoise.sample(model, cfg, 2, torch.Generator().manual_seed(0))
    z = model.encode(torch.randn(2, 5)).detach()
    sample = model.pi(z, noise.explore)
    zeros = torch.zeros(2, cfg.horizon, 2)
    quiet, loud = (plan(model, z, zeros, cfg, noise, discount=0.9, explore=e) for e in (False, True))
    assert torch.equal(quiet.action, sample.mean)
    assert torch.equal(loud.action, sample.action)
    assert torch.equal(quiet.mean[:, 0], sample.mean)
    assert torch.equal(quiet.std[:, 0], sample.log_std.exp())
    assert quiet.values.shape == (2, 0)


@pytest.mark.usefixtures("_form")
def test_every_form_of_a_discount_means_the_same() -> None:
    model, cfg = world()
    noise = PlanNoise.sample(model, cfg, 3, torch.Generator().manual_seed(0))
    z, prev_mean = model.encode(torch.randn(3, 5)).detach(), torch.zeros(3, cfg.horizon, 2)
    forms = (0.9, torch.tensor(0.9), torch.full((3,), 0.9), torch.full((3,), 0.9, dtype=torch.float64))
    plans = [plan(model, z, prev_mean, cfg, noise, discount=form, explore=True) for form in forms]
    for other in plans[1:]:
        torch.testing.assert_close(other[:2], plans[0][:2], rtol=0, atol=1e-4)


@pytest.mark.usefixtures("_form")
@pytest.mark.parametrize("wrong", ["noise", "prev_mean", "latents", "environments"])
def test_shapes_that_do_not_belong_together_are_refused(wrong: str) -> None:
    model, cfg = world()
    other = WorldModel((5,), 1, model.cfg)
    noise = PlanNoise.sample(other if wrong == "noise" else model, cfg, 2, torch.Generator().manual_seed(0))
    z = torch.rand(3 if wrong == "environments" else 2, 4 if wrong == "latents" else model.cfg.latent_dim)
    prev_mean = torch.zeros(2, cfg.horizon - (wrong == "prev_mean"), 2)
    with pytest.raises((ValueError, RuntimeError), match="shape"):
        plan(model, z, prev_mean, cfg, noise, discount=0.9, explore=True)


@pytest.mark.usefixtures("_form")
@pytest.mark.parametrize("method", PLANNERS)
def test_plans_know_no_dropout(method: str) -> None:
    model, cfg = world(**{"planner.method": method, "model.dropout": 0.5})
    noise = PlanNoise.sample(model, cfg, 2, torch.Generator().manual_seed(0))
    z, prev_mean = model.encode(torch.randn(2, 5)).detach(), torch.zeros(2, cfg.horizon, 2)

    def act() -> torch.Tensor:
        return plan(model, z, prev_mean, cfg, noise, discount=0.9, explore=False).action

    quiet = act()
    model.train()  # as an update leaves it
    assert torch.equal(act(), quiet)
    assert model.training
    assert model.q_ensemble.layers[0].training


def test_noise_is_normal_and_every_pair_of_heads_is_drawn() -> None:
    model, cfg = world(**{"planner.num_samples": 512, "planner.num_pi_trajs": 24, "model.num_q": 5})
    generator = torch.Generator().manual_seed(0)
    noise = PlanNoise.sample(model, cfg, 16, generator)
    for name in ("pi", "candidates", "value_pi"):
        values = getattr(noise, name)
        assert values.mean().abs() < 0.03, name
        assert (values.std() - 1).abs() < 0.03, name
    # Gumbel's moments: the Euler-Mascheroni constant, and pi^2 / 6.
    gumbel = torch.cat([PlanNoise.sample(model, cfg, 256, generator).gumbel for _ in range(8)])
    assert (gumbel.mean() - 0.5772).abs() < 0.03
    assert (gumbel.var() - 1.6449).abs() < 0.1
    pairs = Counter(tuple(sorted(row)) for row in draw_heads(5, 4000, generator).tolist())
    assert len(pairs) == 10
    assert all(300 < count < 500 for count in pairs.values())


@pytest.mark.usefixtures("_form")
def test_one_step_of_cem_by_hand() -> None:
    """The plain mean of the elites, moved to with momentum; the mean is executed."""
    settings = {"planner.method": "cem", "planner.iterations": 1, "planner.momentum": 0.25}
    model, cfg = world(**settings)
    noise = PlanNoise.sample(model, cfg, 1, torch.Generator().manual_seed(0))
    assert len(noise.candidates) == 1
    z, prev_mean = model.encode(torch.randn(1, 5)).detach(), torch.rand(1, cfg.horizon, 2) - 0.5
    decided = plan(model, z, prev_mean, cfg, noise, discount=0.9, explore=False)

    functions = TorchFunctions(model)
    shifted = torch.cat([prev_mean[:, 1:], torch.zeros(1, 1, 2)], 1).transpose(0, 1).unsqueeze(2)
    sampled = (shifted + cfg.max_std * noise.candidates[0]).clamp(-1, 1)
    actions = torch.cat([functions.policy_rollout(z, noise.pi), sampled], 2)
    total, last_z, weight = functions.rollout(z, actions, torch.tensor([[0.9]]))
    value = total + weight * functions.terminal_value(last_z, noise.value_pi[0], noise.heads[0])
    values, best = value[0].topk(cfg.num_elites)
    torch.testing.assert_close(decided.values[0], values, rtol=1e-5, atol=1e-4)
    elites = actions[:, 0, best]
    mean = 0.75 * elites.mean(1) + 0.25 * shifted[:, 0, 0]
    torch.testing.assert_close(decided.mean[0], mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(decided.action[0], mean[0], rtol=0, atol=1e-5)
    std = elites.std(1, correction=0).clamp(cfg.min_std, cfg.max_std)
    torch.testing.assert_close(decided.std[0], std, rtol=0, atol=1e-5)


def test_the_gradient_planner_begins_with_the_last_plan_and_the_policy_s() -> None:
    """With a step of next to nothing, the best of its starts is what it gives."""
    settings = {"planner.method": "gradient", "planner.gradient_steps": 1, "planner.gradient_lr": 1e-9}
    model, cfg = world(**settings)
    z, executed = model.encode(torch.randn(1, 5)).detach(), set()
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        noise, prev_mean = PlanNoise.sample(model, cfg, 1, generator), torch.rand(1, cfg.horizon, 2) - 0.5
        decided = plan(model, z, prev_mean, cfg, noise, discount=0.9, explore=False)
        shifted = torch.cat([prev_mean[:, 1:], torch.zeros(1, 1, 2)], 1)
        rollouts = TorchFunctions(model).policy_rollout(z, noise.pi)[:, 0].transpose(0, 1)  # (P, H, A)
        starts = torch.cat([shifted, rollouts])
        distance = (starts - decided.mean).abs().amax((1, 2))
        assert distance.min() < 1e-3
        executed.add("last plan" if distance.argmin() == 0 else "policy")
    assert executed == {"last plan", "policy"}
