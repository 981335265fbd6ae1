"""torch.compile: nothing breaks a graph or is compiled twice, and the results are the same.

The tests trace the functions and run the traced graph; what a GPU would make of it takes minutes to compile.
"""

import dataclasses
import functools
import logging

import pytest
import torch
from device_guard import META, MetaGenerator, allow_optimizers
from test_core_reference import ACTION, BATCH, OBS, trained
from torch._dynamo.backends.debugging import aot_eager

from tdmpc_ray.core.agents.tdmpc2 import functions, update
from tdmpc_ray.core.agents.tdmpc2.functions import plan
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.nn import compiled
from tdmpc_ray.core.planners import PlanNoise, sampling


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trace only, forward and backward; fail where that fails. Gives one entry per traced function."""
    traced: list[str] = []

    class Traced(compiled.Compiled):
        def __init__(self, function: object) -> None:
            def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
                traced.append(self._name)
                return aot_eager(graph, inputs)

            super().__init__(function, backend=backend)

        def __call__(self, *args: object, **kwargs: object) -> object:
            return self._run(*args, **kwargs)

    monkeypatch.setattr(update, "Compiled", Traced)
    monkeypatch.setattr(sampling, "_compiled", functools.cache(Traced))
    return traced


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_plan_is_two_graphs(dtype: str, graphs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    if dtype == "bf16":  # the fused form rounds less often
        monkeypatch.setattr(functions, "fused_model", lambda *_: None)
    settings = {"planner.dtype": dtype, "planner.iterations": 3, "planner.temperature": 0.01}
    model, agent = trained(**settings)
    model.eval()
    noise = PlanNoise.sample(model, agent.planner, 2, torch.Generator().manual_seed(1))
    z, prev_mean = model.encode(torch.randn(2, OBS)).detach(), torch.zeros(2, 3, ACTION)
    plans = []
    for setting in ("never", "always", "always"):
        cfg = dataclasses.replace(agent.planner, compile=setting)
        plans.append(plan(model, z, prev_mean, cfg, noise, discount=0.97, explore=True))
    assert graphs == ["_propose", "_refine"]
    ours, theirs, again = plans
    assert torch.equal(theirs.mean, again.mean)
    if dtype == "fp32":
        torch.testing.assert_close(ours.action, theirs.action, rtol=0, atol=1e-4)
    # In bf16 other roundings let other candidates be elites.
    torch.testing.assert_close(ours.mean, theirs.mean, rtol=0, atol=1e-4 if dtype == "fp32" else 0.05)


@pytest.mark.parametrize(("dtype", "has_short"), [("fp32", False), ("bf16", True)])
def test_an_update_is_three_graphs(dtype: str, has_short: bool, graphs: list[str]) -> None:
    metrics = []
    for setting in ("never", "always"):
        torch.manual_seed(0)
        settings = {"model.dropout": 0.0, "update.compile": setting, "update.dtype": dtype}
        settings["model.episodic"] = has_short
        model, agent = trained(**settings)
        updater, generator = Updater(model, agent.update, 0.97), torch.Generator().manual_seed(1)
        for length in (3, 1):
            obs, action = torch.randn(4, BATCH, OBS), torch.rand(3, BATCH, ACTION)
            batch = Batch(obs, action, torch.randn(3, BATCH, 1), torch.zeros(3, BATCH, 1))
            if has_short:
                mask = torch.arange(3).lt(length).float().view(3, 1, 1)
                batch = batch._replace(mask=mask.repeat(1, BATCH, 1))
            metrics.append(updater.step(batch, UpdateNoise.sample(model, 3, BATCH, generator)))
    assert graphs == ["_targets", "world_model_loss", "policy_loss"]
    rtol = 1e-4 if dtype == "fp32" else 0.1  # other roundings: of gradients, too
    for name, value in metrics[1].items():
        torch.testing.assert_close(metrics[3][name], value, rtol=rtol, atol=1e-5, msg=name)


def test_graphs_take_no_tensor_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA graph cannot; on `meta`, what is made on the CPU can be told from the rest."""
    allow_optimizers(monkeypatch)
    devices: dict[str, set[str]] = {}

    class Looked(compiled.Compiled):
        def __init__(self, function: object) -> None:
            def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
                given = {x.device.type for x in inputs if isinstance(x, torch.Tensor)}
                devices.setdefault(self._name, set()).update(given)
                return aot_eager(graph, inputs)

            super().__init__(function, backend=backend)

    monkeypatch.setattr(update, "Compiled", Looked)
    monkeypatch.setattr(sampling, "_compiled", functools.cache(Looked))
    model, agent = trained(**{"update.compile": "always", "planner.compile": "always"})
    model.to(META)
    obs, action = torch.empty(4, BATCH, OBS, device=META), torch.empty(3, BATCH, ACTION, device=META)
    reward = torch.empty(3, BATCH, 1, device=META)
    noise = UpdateNoise.sample(model, 3, BATCH, MetaGenerator())
    Updater(model, agent.update, 0.97).step(Batch(obs, action, reward, torch.zeros_like(reward)), noise)
    plan_noise, prev_mean = PlanNoise.sample(model, agent.planner, 2, MetaGenerator()), action[:, :2]
    z = model.encode(obs[0, :2]).detach()
    mean = prev_mean.transpose(0, 1).contiguous()
    plan(model, z, mean, agent.planner, plan_noise, discount=0.97, explore=True)
    names = {"_targets", "world_model_loss", "policy_loss", "_propose", "_refine"}
    assert devices == {name: {"meta"} for name in names}


def test_where_nothing_can_compile_it_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("no compiler here")

    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    function = compiled.Compiled(double, backend=broken)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(function(torch.ones(3)), torch.full((3,), 2.0))
    [line] = [r.getMessage() for r in caplog.records if r.name == compiled.__name__]
    assert "double runs uncompiled, and slower" in line
    assert "no compiler here" in line


def test_auto_means_gpus() -> None:
    assert compiled.compiles("auto", torch.device("cuda"))
    assert not compiled.compiles("auto", torch.device("cpu"))
    assert compiled.compiles("always", torch.device("cpu"))
