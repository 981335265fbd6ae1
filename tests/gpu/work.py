"""Agents on walker-walk's sizes, and the plans and updates that are measured on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from gpu.sections import Check

from tdmpc_ray.core.agents.tdmpc2.functions import plan
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import AgentConfig, agent_config
from tdmpc_ray.core.planners import PlanNoise

OBS, ACTION, DISCOUNT = 24, 6, 0.99


def agent_of(size: str, *, dtype: str = "fp32", compile: str = "auto", **settings: Any) -> AgentConfig:
    """Paper settings."""
    agent = agent_config(size, overrides=settings)
    planner = replace(agent.planner, dtype=dtype, compile=compile)
    return replace(agent, planner=planner, update=replace(agent.update, dtype=dtype, compile=compile))


def model_of(check: Check, agent: AgentConfig) -> WorldModel:
    """A model whose heads are not zero, made on the device: on the CPU the largest would take a minute."""
    torch.manual_seed(0)
    with torch.device(check.device):
        model = WorldModel((OBS,), ACTION, agent.model)
    with torch.no_grad():
        for head in (model.reward_head[-1], model.q_ensemble.layers[-1]):
            head.weight.normal_(std=0.05)
    return model


def batch_of(check: Check, model: WorldModel, size: int, horizon: int = 3) -> Batch:
    """A batch of random numbers on the device."""
    generator = torch.Generator(check.device).manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=check.device)

    action = normal(horizon, size, model.action_dim).clamp(-1, 1)
    reward = normal(horizon, size, 1)
    return Batch(normal(horizon + 1, size, *model.obs_shape), action, reward, torch.zeros_like(reward))


def plan_task(check: Check, model: WorldModel, agent: AgentConfig, num_envs: int) -> Callable[[], object]:
    """One decision of every environment, its noise included."""
    generator = torch.Generator(check.device).manual_seed(0)
    obs = batch_of(check, model, num_envs).obs[0]
    prev_mean = torch.zeros(num_envs, agent.planner.horizon, model.action_dim, device=check.device)

    @torch.no_grad()
    def task() -> object:
        model.eval()
        noise = PlanNoise.sample(model, agent.planner, num_envs, generator)
        z = model.encode(obs)
        return plan(model, z, prev_mean, agent.planner, noise, discount=DISCOUNT, explore=True)

    return task


def update_task(check: Check, model: WorldModel, agent: AgentConfig) -> Callable[[], object]:
    """One gradient step on a batch that lies on the device, its noise included."""
    generator, size = torch.Generator(check.device).manual_seed(0), agent.update.batch_size
    batch, updater = batch_of(check, model, size), Updater(model, agent.update, DISCOUNT)
    return lambda: updater.step(batch, UpdateNoise.sample(model, batch.horizon, size, generator))
