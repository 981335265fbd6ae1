"""Plans by the fused kernels: the same as in PyTorch, and left to it where the kernels do not fit."""

from typing import Any

import pytest
import torch
from worlds import Quadratic, world

from tdmpc_ray.core.agents.tdmpc2 import functions, fused
from tdmpc_ray.core.agents.tdmpc2.functions import TorchFunctions, plan
from tdmpc_ray.core.agents.tdmpc2.fused import fused_model
from tdmpc_ray.core.nn.precision import products_in
from tdmpc_ray.core.planners import Plan, PlanNoise


def test_layers_wider_than_the_kernels_buffers_run_in_pytorch() -> None:
    assert fused_model(world()[0]) is not None
    assert fused_model(world(**{"model.num_bins": 8193})[0]) is None


def test_models_without_simnorm_or_bins_plan_as_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    prev_mean = torch.zeros(2, 3, 2)
    for settings, fusable in (({"model.simnorm_dim": 0}, True), ({"model.num_bins": 1}, False)):
        model, cfg = world(**settings, **{"model.latent_dim": 16, "planner.iterations": 1})
        assert (fused_model(model) is not None) == fusable
        assert fused_model(model, dtype="bf16") is None
        noise = PlanNoise.sample(model, cfg, 2, torch.Generator().manual_seed(0))
        one = plan(model, z, prev_mean, cfg, noise, discount=0.9, explore=True)
        with monkeypatch.context() as context:
            context.setattr(functions, "fused_model", lambda *_: None)
            two = plan(model, z, prev_mean, cfg, noise, discount=0.9, explore=True)
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-4)
        assert (one.mean.abs() > 0.01).any()


@pytest.mark.parametrize("kind", ["plain", "episodic", "multitask"])
def test_the_fused_form_in_bf16_stays_near_float32(kind: str) -> None:
    model, _ = world([2, 1] if kind == "multitask" else None, **{"model.episodic": kind == "episodic"})
    task = model.task(torch.tensor([0, 1])) if kind == "multitask" else None
    z, actions, discount = model.encode(torch.randn(2, 5), task), torch.rand(3, 2, 9, 2), torch.ones(2, 1)
    eps, heads = torch.randn(3, 2, 9, 2), torch.tensor([1, 0])

    def outputs(dtype: str) -> list[torch.Tensor]:
        functions = fused_model(model, task, dtype)
        assert functions is not None
        with torch.no_grad(), products_in(dtype, z.device):
            total, last_z, weight = functions.rollout(z, actions, discount)
            assert last_z.dtype == (torch.bfloat16 if dtype == "bf16" else torch.float32)
            value = functions.terminal_value(last_z, eps[0], heads)
            return [total, last_z.float(), weight, value, functions.policy_rollout(z, eps)]

    for bf16, fp32 in zip(outputs("bf16"), outputs("fp32"), strict=True):
        assert bf16.dtype == torch.float32
        assert (bf16 - fp32).abs().max() < 0.04 * fp32.abs().max().clamp(min=1e-3)
    assert not torch.equal(outputs("bf16")[0], outputs("fp32")[0])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(
    "changed", ["z", "actions", "discount", "eps", "reward", "termination", "policy", "q"]
)
def test_what_is_not_finite_stays_so(changed: str, value: float) -> None:
    model, _ = world(**{"model.episodic": True})
    z, actions, discount = model.encode(torch.randn(2, 5)).detach(), torch.rand(3, 2, 9, 2), torch.ones(2, 1)
    eps, heads = torch.randn(3, 2, 9, 2), torch.tensor([1, 0])
    places = {
        "reward": model.reward_head[-1].bias,
        "termination": model.termination_head[-1].bias,
        "policy": model.policy[-1].bias,
        "q": model.q_ensemble.layers[-1].bias[1],
    }
    places |= {"z": z[0], "actions": actions[0, 1], "discount": discount[0], "eps": eps[0, 1]}

    def outputs(functions: Any) -> list[torch.Tensor]:
        total, last_z, weight = functions.rollout(z, actions, discount)
        return [total, last_z, weight, functions.terminal_value(last_z, eps[0], heads),
                functions.policy_rollout(z, eps)]  # fmt: skip

    with torch.no_grad():
        places[changed].view(-1)[0] = value
        for ours, reference in zip(outputs(fused_model(model)), outputs(TorchFunctions(model)), strict=True):
            torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_plans_are_the_same_without_mkl_s_packed_products(monkeypatch: pytest.MonkeyPatch) -> None:
    model, cfg = world(action_dims=[2, 1], **{"model.episodic": True})
    task = model.task(torch.tensor([1, 0]))
    noise = PlanNoise.sample(model, cfg, 2, torch.Generator().manual_seed(0))
    z, prev_mean = model.encode(torch.randn(2, 5), task).detach(), torch.zeros(2, cfg.horizon, 2)

    def act() -> Plan:
        return plan(model, z, prev_mean, cfg, noise, discount=0.9, explore=False, task=task)

    packed = act()
    monkeypatch.setattr(fused, "_packing", lambda: None)
    torch.testing.assert_close(act()[:2], packed[:2], rtol=0, atol=1e-4)


def test_a_model_of_the_user_s_own_is_not_replaced_by_kernels() -> None:
    assert fused_model(world()[0]) is not None
    assert fused_model(Quadratic(torch.zeros(2))) is None


@pytest.mark.parametrize("change", ["strides", "bf16", "double"])
def test_weights_that_the_kernels_would_misread_run_in_pytorch(change: str) -> None:
    model, _ = world()
    layer = model.dynamics[1]
    if change == "strides":
        layer.weight.data = layer.weight.data.T.contiguous().T
    else:
        layer.to(torch.bfloat16 if change == "bf16" else torch.float64)
    assert fused_model(model) is None


def test_plans_keep_their_packed_weights_in_one_place() -> None:
    model, cfg = world()
    seen = []
    for _ in range(3):
        noise = PlanNoise.sample(model, cfg, 1, torch.Generator().manual_seed(0))
        plan(model, torch.rand(1, 64), torch.zeros(1, 3, 2), cfg, noise, discount=0.9, explore=False)
        seen.append({index: buffer.data_ptr() for index, buffer in fused._buffers.get(model, {}).items()})
    assert seen[0] == seen[1] == seen[2]
    # Dynamics, reward, policy and two heads, of three layers each.
    assert len(seen[0]) == (15 if fused._packing() else 0)
