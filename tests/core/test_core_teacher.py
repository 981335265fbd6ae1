"""A larger model's predictions as further targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tdmpc_ray.core.agents import find_agent
from tdmpc_ray.core.agents.tdmpc2.losses import teach
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import agent_config
from tdmpc_ray.core.nn.math import symlog

AGENT, HORIZON, SIZE = find_agent("tdmpc2"), 3, 64


def batch_of(tasks: int) -> Batch:
    """Every reward is 0."""
    rng = torch.Generator().manual_seed(0)
    obs = torch.randn(HORIZON + 1, SIZE, 4, generator=rng)
    action = torch.rand(HORIZON, SIZE, 2, generator=rng) * 2 - 1
    zeros = torch.zeros(HORIZON, SIZE, 1)
    return Batch(obs, action, zeros, zeros, torch.arange(SIZE) % tasks if tasks else None)


def teacher_of(tasks: int) -> Any:
    """One that tells steps apart: rewards and values of all sizes."""
    torch.manual_seed(5)
    cfg = agent_config("1").model
    networks = AGENT.make_networks((4,), 2, cfg, action_dims=[2, 1][:tasks] or None, learns=False)
    with torch.no_grad():
        for head in (networks.reward_head[-1], networks.q_ensemble.layers[-1]):
            head.weight.normal_(std=0.2)
    return networks.requires_grad_(False).eval()


def learn(tasks: int, teacher: Any, **settings: float) -> tuple[Any, dict[str, torch.Tensor]]:
    overrides = {"update.lr": 1e-3, "update.batch_size": SIZE}
    cfg = agent_config("tiny", overrides=overrides | {f"update.{key}": x for key, x in settings.items()})
    torch.manual_seed(0)
    action_dims = [2, 1][:tasks] or None
    networks = AGENT.make_networks((4,), 2, cfg.model, action_dims=action_dims)
    discount = [0.5] * tasks or 0.5
    optimizers = AGENT.make_optimizers(networks, cfg.update)
    updater = AGENT.make_updater(networks, cfg.update, discount, optimizers, None)
    updater.teacher = teacher
    rng = torch.Generator().manual_seed(1)
    for _ in range(40):
        metrics = updater.step(batch_of(tasks), AGENT.draw_update(networks, HORIZON, SIZE, rng))
    return networks.eval(), metrics


def distances(networks: Any, teacher: Any, tasks: int) -> tuple[float, float]:
    """Of rewards and of values, in symlog space."""
    pairs = zip(teach(networks, batch_of(tasks)), teach(teacher, batch_of(tasks)), strict=True)
    reward, value = (float((symlog(x) - symlog(y)).square().mean()) for x, y in pairs)
    return reward, value


@pytest.mark.parametrize("tasks", [0, 2])
def test_the_student_comes_near_to_what_the_teacher_foresees(tasks: int) -> None:
    teacher = teacher_of(tasks)
    before = [x.clone() for x in teacher.parameters()]
    alone, metrics = learn(tasks, None)
    assert "loss/teacher" not in metrics
    taught, metrics = learn(tasks, teacher, teacher_reward_coef=1.0, teacher_value_coef=1.0)
    assert metrics["loss/teacher"] > 0
    assert all(map(torch.equal, before, teacher.parameters()))
    for ours, others in zip(distances(taught, teacher, tasks), distances(alone, teacher, tasks), strict=True):
        assert ours < 0.7 * others


def test_values_are_no_target_where_nobody_says_so() -> None:
    teacher = teacher_of(0)
    rewards, _ = learn(0, teacher, teacher_reward_coef=1.0)
    _, nothing = learn(0, teacher, teacher_reward_coef=0.0)
    assert nothing["loss/teacher"] == 0
    both, _ = learn(0, teacher, teacher_reward_coef=1.0, teacher_value_coef=1.0)
    assert distances(both, teacher, 0)[1] < 0.7 * distances(rewards, teacher, 0)[1]


def test_its_predictions_are_a_part_of_the_cost() -> None:
    cfg, teacher = agent_config("tiny"), teacher_of(0)
    networks = AGENT.make_networks((4,), 2, cfg.model)
    alone, taught = AGENT.costs(networks, cfg), AGENT.costs(networks, cfg, teacher)
    assert taught.per_plan == alone.per_plan
    assert taught.per_update > 1.2 * alone.per_update
