"""The fast plan and update against the straightforward ones of tests/reference.py, over many random cases."""

import copy
import dataclasses

import pytest
import reference
import torch
from worlds import redraw

from tdmpc_ray.core.agents.tdmpc2 import functions
from tdmpc_ray.core.agents.tdmpc2.functions import plan
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import agent_config
from tdmpc_ray.core.nn import kernels
from tdmpc_ray.core.planners import PlanNoise

OBS, ACTION, BATCH = 5, 2, 16


def trained(size: str = "tiny", **settings: object) -> tuple[WorldModel, object]:
    """A model whose heads are not zero, as after some updates."""
    agent = agent_config(size, "light", {"update.batch_size": BATCH, **settings})
    model = redraw(WorldModel((OBS,), ACTION, agent.model), int(torch.randint(2**31, ())))
    with torch.no_grad():
        for head in (model.reward_head[-1], model.q_ensemble.layers[-1]):
            head.weight.normal_(std=0.3)
    model.target_q.load_state_dict(model.q_ensemble.state_dict())
    return model, agent


@pytest.mark.parametrize("fused", [True, False])
def test_plans_are_those_of_the_reference(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not fused:
        monkeypatch.setattr(functions, "fused_model", lambda *_: None)
    torch.manual_seed(1)
    model, agent = trained("1")
    model.eval()
    same = 0
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        noise = PlanNoise.sample(model, agent.planner, 1, generator)
        z = model.encode(torch.randn(1, OBS, generator=generator)).detach()
        prev_mean = torch.rand(agent.planner.horizon, ACTION, generator=generator) * 2 - 1
        ours = plan(model, z, prev_mean[None], agent.planner, noise, discount=0.97, explore=True)
        action, mean = reference.plan(model, z, prev_mean, agent.planner, noise, 0.97)
        same += torch.allclose(ours.action[0], action, atol=1e-3) and torch.allclose(
            ours.mean[0], mean, atol=1e-3
        )
    assert same >= 18  # rounding swaps two candidates of nearly one value once in a while


def test_a_hundred_updates_follow_the_reference() -> None:
    torch.manual_seed(2)
    model, agent = trained(**{"model.dropout": 0.0})
    theirs = copy.deepcopy(model)
    ours, reference_update = Updater(model, agent.update, 0.97), reference.Update(theirs, agent.update, 0.97)
    generator = torch.Generator().manual_seed(3)
    for _ in range(100):
        batch = Batch(
            torch.randn(4, BATCH, OBS, generator=generator),
            torch.rand(3, BATCH, ACTION, generator=generator) * 2 - 1,
            torch.randn(3, BATCH, 1, generator=generator),
            (torch.rand(3, BATCH, 1, generator=generator) < 0.1).float(),
        )
        noise = UpdateNoise.sample(model, 3, BATCH, generator)
        metrics, expected = ours.step(batch, noise), reference_update.step(batch, noise)
    for name, value in expected.items():
        torch.testing.assert_close(metrics[name], value, rtol=2e-3, atol=2e-3, msg=name)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=2e-3, msg=name)
    torch.testing.assert_close(ours.scale, reference_update.scale, rtol=1e-3, atol=0)


@pytest.fixture(params=[True, False], ids=["kernels", "plain"])
def _with_and_without_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(kernels, "library", lambda: None)
        monkeypatch.setattr(functions, "fused_model", lambda *_: None)


@pytest.mark.usefixtures("_with_and_without_kernels")
@pytest.mark.parametrize("method", ["mppi", "gradient"])
def test_a_plan_in_bf16_values_candidates_as_in_fp32(method: str) -> None:
    torch.manual_seed(4)
    settings = {"planner.method": method, "planner.iterations": 1, "planner.temperature": 0.01}
    model, agent = trained("1", **settings)
    model.eval()
    plans = []
    generator = torch.Generator().manual_seed(5)
    noise = PlanNoise.sample(model, agent.planner, 8, generator)
    z = model.encode(torch.randn(8, OBS)).detach()
    for dtype in ("fp32", "bf16"):
        cfg = dataclasses.replace(agent.planner, dtype=dtype)
        plans.append(plan(model, z, torch.zeros(8, 3, ACTION), cfg, noise, discount=0.97, explore=False))
    assert plans[1].mean.dtype == torch.float32
    # Rounding swaps candidates of nearly one value, which moves a mean of 16 elites a little.
    assert (plans[0].mean - plans[1].mean).abs().mean() < 0.05
    assert not torch.equal(plans[0].mean, plans[1].mean)  # it did run in bf16


@pytest.mark.usefixtures("_with_and_without_kernels")
def test_updates_in_bf16_lose_as_in_fp32() -> None:
    """The same 300 batches and noise; losses at the end, averaged over 50 updates."""
    curves, names = [], [f"loss/{name}" for name in ("consistency", "reward", "value", "pi")]
    for dtype in ("fp32", "bf16"):
        torch.manual_seed(6)
        settings = {
            "update.batch_size": BATCH,
            "model.dropout": 0.0,
            "update.lr": 1e-3,
            "update.dtype": dtype,
        }
        agent = agent_config("tiny", overrides=settings)
        model = WorldModel((OBS,), ACTION, agent.model)
        updater, generator = Updater(model, agent.update, 0.97), torch.Generator().manual_seed(7)
        losses = []
        for _ in range(300):
            obs = torch.randn(4, BATCH, OBS, generator=generator)
            action = torch.rand(3, BATCH, ACTION, generator=generator) * 2 - 1
            reward = (obs[:-1, :, :1] + action[..., :1]).tanh()
            batch = Batch(obs, action, reward, torch.zeros(3, BATCH, 1))
            metrics = updater.step(batch, UpdateNoise.sample(model, 3, BATCH, generator))
            assert metrics["loss/total"].dtype == torch.float32
            losses.append([float(metrics[name]) for name in names])
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.world_parameters())
        curves.append(torch.tensor(losses))
    fp32, bf16 = curves
    assert not torch.equal(fp32, bf16)
    assert fp32[-50:, 1].mean() < 0.6 * fp32[:50, 1].mean()  # there is something to learn, and it is learned
    torch.testing.assert_close(fp32[-50:].mean(0), bf16[-50:].mean(0), rtol=0.05, atol=0)
