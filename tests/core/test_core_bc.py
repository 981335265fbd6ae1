"""The policy's squared distance to the data's actions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tdmpc_ray.core.agents import find_agent
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import agent_config

HORIZON, SIZE = 3, 64
AGENT = find_agent("tdmpc2")


def updater_of(coef: float, action_dims: list[int] | None = None) -> tuple[Any, Any]:
    overrides = {"update.bc_coef": coef, "update.lr": 1e-3, "update.batch_size": SIZE}
    cfg = agent_config("tiny", overrides=overrides)
    torch.manual_seed(0)
    networks = AGENT.make_networks((4,), 2, cfg.model, action_dims=action_dims)
    discount = [0.9] * len(action_dims) if action_dims else 0.9
    optimizers = AGENT.make_optimizers(networks, cfg.update)
    return networks, AGENT.make_updater(networks, cfg.update, discount, optimizers, None)


def batch_of(tasks: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(0)
    obs = torch.randn(HORIZON + 1, SIZE, 4, generator=rng)
    action = torch.stack([obs[:-1, :, 0].tanh(), torch.full((HORIZON, SIZE), -0.5)], -1)
    reward, ends = torch.zeros(HORIZON, SIZE, 1), torch.zeros(HORIZON, SIZE, 1)
    task = torch.arange(SIZE) % tasks if tasks else None
    return Batch(obs, action, reward, ends, task)


def distance(networks: Any, batch: Batch) -> torch.Tensor:
    """Of each number of the policy's mode to the data's, (2,)."""
    with torch.no_grad():
        task = networks.task(batch.task)
        mean = AGENT.policy_mean(networks, AGENT.encode(networks, batch.obs[0], task), task)
    return (mean - batch.action[0]).square().mean(0)


@pytest.mark.parametrize("tasks", [0, 2])
def test_the_policy_comes_near_to_the_actions_that_a_task_has(tasks: int) -> None:
    found = {}
    for coef in (0.0, 10.0):
        networks, updater = updater_of(coef, [2, 1] if tasks else None)
        batch, rng = batch_of(tasks), torch.Generator().manual_seed(1)
        for _ in range(60):
            metrics = updater.step(batch, AGENT.draw_update(networks, HORIZON, SIZE, rng))
        assert ("loss/bc" in metrics) == (coef > 0)
        found[coef] = distance(networks, batch)
    assert found[10.0][0] < 0.3 * found[0.0][0]
    if tasks:  # the second number is no part of the second task's action
        assert metrics["loss/bc"] < 0.2


def test_what_lies_behind_the_end_of_a_sequence_does_not_count() -> None:
    networks, _ = updater_of(1.0)
    batch = batch_of()
    mask = torch.ones(HORIZON, SIZE, 1)
    mask[1:] = 0.0
    noise = AGENT.draw_update(networks, HORIZON, SIZE, torch.Generator().manual_seed(1))
    other = batch._replace(action=torch.cat([batch.action[:1], -batch.action[1:]]))
    losses = []
    for one in (batch, other):
        networks, updater = updater_of(1.0)
        losses.append(float(updater.step(one._replace(mask=mask), noise)["loss/bc"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
