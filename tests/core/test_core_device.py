"""Nothing in an update or a plan reads the device, or takes a tensor of the CPU there."""

from typing import Any

import numpy as np
import pytest
import torch
from device_guard import META, MetaGenerator, allow_optimizers, device_guard
from tiny import TINY

from tdmpc_ray.core.agents.tdmpc2.functions import plan
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import agent_config
from tdmpc_ray.core.nn.readback import Readback
from tdmpc_ray.core.planners import PlanNoise

IMAGES = {"obs_shape": (9, 64, 64)}
TASKS = {"action_dims": [2, 1, 2]}


def build(model: dict[str, Any], settings: dict[str, Any]) -> tuple[WorldModel, Any]:
    agent = agent_config("tiny", overrides={**TINY, **settings})
    built = WorldModel(model.get("obs_shape", (5,)), 2, agent.model, action_dims=model.get("action_dims"))
    return built.to(META), agent


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ({}, {}),
        ({}, {"model.episodic": True}),
        (IMAGES, {}),
        (TASKS, {}),
        ({}, {"model.num_bins": 1, "model.simnorm_dim": 0}),
    ],
)
def test_an_update_does_not_read_the_device(
    monkeypatch: pytest.MonkeyPatch, model: dict[str, Any], settings: dict[str, Any], weighted: bool
) -> None:
    world_model, agent = build(model, settings)
    size, shape = agent.update.batch_size, world_model.obs_shape
    kind = torch.uint8 if len(shape) == 3 else torch.float32
    batch = Batch(
        torch.empty(4, size, *shape, device=META, dtype=kind),
        torch.empty(3, size, 2, device=META),
        torch.empty(3, size, 1, device=META),
        torch.empty(3, size, 1, device=META),
        torch.empty(size, device=META, dtype=torch.int64) if "action_dims" in model else None,
        torch.empty(size, device=META) if weighted else None,
        mask=torch.empty(3, size, 1, device=META) if agent.model.episodic else None,
    )
    allow_optimizers(monkeypatch)
    updater = Updater(world_model, agent.update, [0.9] * 3 if "action_dims" in model else 0.9)
    with device_guard(monkeypatch):
        for _ in range(2):
            metrics = updater.step(batch, UpdateNoise.sample(world_model, 3, size, MetaGenerator()))
    assert {x.device for x in metrics.values()} == {META}
    assert (updater.td_error is not None) == weighted


@pytest.mark.parametrize("explore", [False, True])
@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ({}, {}),
        ({}, {"model.episodic": True}),
        ({}, {"planner.method": "cem"}),
        ({}, {"planner.method": "policy"}),
        (TASKS, {}),
    ],
)
def test_a_plan_does_not_read_the_device(
    monkeypatch: pytest.MonkeyPatch, model: dict[str, Any], settings: dict[str, Any], explore: bool
) -> None:
    world_model, agent = build(model, settings)
    task_id = torch.empty(3, device=META, dtype=torch.int64) if "action_dims" in model else None
    with device_guard(monkeypatch):
        noise = PlanNoise.sample(world_model, agent.planner, 3, MetaGenerator())
        task = world_model.task(task_id)
        z = world_model.encode(torch.empty(3, 5, device=META), task).detach()
        prev_mean = torch.empty(3, agent.planner.horizon, 2, device=META)
        discount = 0.9 if task_id is None else torch.empty(3, device=META)
        decided = plan(
            world_model, z, prev_mean, agent.planner, noise, discount=discount, explore=explore, task=task
        )
    assert decided.action.device == META


@pytest.mark.parametrize(
    "reads",
    [
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: x.numpy(),
        lambda x: bool(x.sum() > 0),
        lambda x: x[x > 0],
        lambda x: x + torch.ones(3),
        lambda x: x * torch.tensor(2.0),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: x[[0, 1]],
        lambda x: x[np.array([0, 1])],
        lambda x: x.new_tensor([1.0]),
        lambda x: torch.quantile(x, 0.95),
        lambda x: torch.tensor([1.0], device=META),
        lambda x: torch.ones(3).to(META),
    ],
)
def test_the_guard_sees_what_would_wait_for_a_gpu(monkeypatch: pytest.MonkeyPatch, reads: Any) -> None:
    errors = (AssertionError, RuntimeError, NotImplementedError, TypeError)
    with device_guard(monkeypatch), pytest.raises(errors):
        reads(torch.empty(3, device=META))


def test_a_readback_keeps_what_was_there() -> None:
    x = torch.arange(3.0)
    readback = Readback(x)
    x.zero_()
    assert readback.value().tolist() == [0.0, 1.0, 2.0]
