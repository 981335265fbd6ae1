"""Recorded cases of the published implementation, and what has to equal them.

They lie in tests/fixtures/official_tdmpc2. Nothing here imports pytest: machines with GPUs may have none.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tdmpc_ray.core.agents.tdmpc2.config import ModelConfig, UpdateConfig
from tdmpc_ray.core.agents.tdmpc2.functions import TorchFunctions, plan
from tdmpc_ray.core.agents.tdmpc2.losses import td_target
from tdmpc_ray.core.agents.tdmpc2.official import from_official
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import PlannerConfig
from tdmpc_ray.core.nn.math import two_hot, two_hot_cross_entropy
from tdmpc_ray.core.planners import PlanNoise

FIXTURES = Path(os.environ.get("TDMPC_RAY_FIXTURES", Path(__file__).parent / "fixtures" / "official_tdmpc2"))
CASES = ("single", "episodic", "pixels", "multitask")


class Case:
    """One recorded case: its arrays, and our model with its weights.

    Args:
        name: one of CASES.
        device: where both lie.
        compile: of plans and updates, see `core.compiled`.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu", compile: str = "auto") -> None:
        cfg = json.loads((FIXTURES / f"{name}.json").read_text())
        recorded = np.load(FIXTURES / f"{name}.npz")
        self.arrays = {key: torch.from_numpy(recorded[key]).to(device) for key in recorded.files}

        def section(kind: type) -> dict[str, Any]:
            names = {field.name for field in dataclasses.fields(kind)}
            return {k: cfg[k] for k in names - {"compile"} if k in cfg}  # a boolean there

        self.model_cfg = ModelConfig(**section(ModelConfig))
        self.planner_cfg = PlannerConfig(**section(PlannerConfig), compile=compile)
        self.update_cfg = UpdateConfig(**section(UpdateConfig), compile=compile)
        (obs_shape,) = cfg["obs_shape"].values()
        action_dims = cfg["action_dims"] if cfg["multitask"] else None
        model = WorldModel(obs_shape, cfg["action_dim"], self.model_cfg, action_dims=action_dims)
        state = torch.load(FIXTURES / f"{name}.pt", weights_only=True, map_location="cpu")["model"]
        model.load_state_dict(from_official(state))
        self.model = model.eval().to(device)
        self.heads = torch.tensor([0, 1], device=device)  # the recording drew these two everywhere
        self.task_id = self.arrays.get("task")
        self.task = self.model.task(self.task_id)
        # Planning was recorded for one environment, with several tasks that of the second one.
        self.one_task = self.model.task(None if self.task is None else torch.tensor([1], device=device))
        self.discount = self["discount"]
        self.one_discount = self.discount if self.task is None else self.discount[1]

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.arrays[key]

    def batch(self) -> Batch:
        return Batch(self["obs"], self["action"], self["reward"], self["terminated"], self.task_id)


def close(ours: torch.Tensor, published: torch.Tensor, rtol: float = 1e-4, atol: float = 2e-6) -> None:
    torch.testing.assert_close(ours.detach(), published, rtol=rtol, atol=atol)


def check_model_outputs(case: Case) -> None:
    model, action, task = case.model, case["action"][0], case.task
    z = model.encode(case["obs"][0], task)
    close(z, case["z"])
    close(model.next(z, action, task), case["next_z"])
    close(model.reward_logits(z, action, task), case["reward_logits"])
    close(model.reward(z, action, task), case["reward_value"])
    close(model.q_logits(z, action, task=task), case["q_logits"])
    close(model.q_logits(z, action, task=task, target=True), case["q_target_logits"])
    close(model.q(z, action, case.heads, task).mean(0), case["q_avg"])
    close(model.q(z, action, case.heads, task).amin(0), case["q_min"])
    if case.model_cfg.episodic:
        close(torch.sigmoid(model.termination_logit(z)), case["termination_prob"])


def check_policy(case: Case) -> None:
    sample = case.model.pi(case["z"], case["pi_eps"], case.task)
    close(sample.action, case["pi_action"])
    close(sample.mean, case["pi_mean"])
    close(sample.log_std, case["pi_log_std"])
    close(sample.entropy, case["pi_entropy"])
    close(sample.scaled_entropy, case["pi_scaled_entropy"])


def check_discrete_regression(case: Case) -> None:
    cfg = case.model_cfg
    close(two_hot(case["twohot_x"], cfg.vmin, cfg.vmax, cfg.num_bins), case["twohot"])
    loss = two_hot_cross_entropy(case["reward_logits"], case["reward"][0], cfg.vmin, cfg.vmax)
    close(loss, case["soft_ce"])


def check_td_target(case: Case) -> None:
    model = case.model
    target = td_target(
        model,
        model.encode(case["obs"][1], case.task),
        case["reward"][0],
        case["terminated"][0],
        case.discount if case.task is None else case.discount[case.task_id].unsqueeze(-1),
        case["pi_eps"],
        case.heads,
        case.task,
    )
    close(target, case["td_target"])


def check_candidate_values(case: Case, make: Callable[..., Any] = TorchFunctions) -> None:
    model, actions = case.model, case["value_actions"]
    z = model.encode(case["obs"][0, :1], case.one_task)
    functions = make(model, case.one_task)
    assert functions is not None, "this test needs a C compiler"
    with torch.no_grad():
        total, last_z, weight = functions.rollout(z, actions.unsqueeze(1), case.one_discount.view(1, 1))
        eps = case["pi_eps"][0].expand(1, actions.shape[1], -1)
        value = total + weight * functions.terminal_value(last_z, eps, case.heads)
    close(value.T, case["value"])


def check_plan(case: Case) -> None:
    model, cfg = case.model, case.planner_cfg
    iterations, horizon, num_sampled, action_dim = case["plan_noise"].shape
    eps = case["pi_eps"][0]
    noise = PlanNoise(
        pi=eps.expand(horizon, 1, cfg.num_pi_trajs, -1),
        candidates=case["plan_noise"].view(iterations, horizon, 1, num_sampled, action_dim),
        value_pi=eps.expand(iterations, 1, cfg.num_samples, -1),
        heads=case.heads.expand(iterations, 2),
        gumbel=eps.new_zeros(1, cfg.num_elites),
        explore=eps.new_zeros(1, action_dim),
    )
    with torch.no_grad():
        z = model.encode(case["obs"][0, :1], case.one_task)
    prev_mean = case["plan_prev_mean"].unsqueeze(0)
    _, mean, *_ = plan(
        model, z, prev_mean, cfg, noise, discount=case.one_discount, explore=False, task=case.one_task
    )
    close(mean[0], case["plan_mean"], rtol=1e-3, atol=1e-4)


def check_one_update(case: Case) -> None:
    model, batch, eps = case.model, case.batch(), case["pi_eps"]
    noise = UpdateNoise(
        target_eps=eps.expand(batch.horizon, *eps.shape),
        target_heads=case.heads,
        pi_eps=eps.expand(batch.horizon + 1, *eps.shape),
        pi_heads=case.heads,
    )
    metrics = Updater(model, case.update_cfg, case.discount).step(batch, noise)
    published = {
        "loss/consistency": "consistency_loss",
        "loss/reward": "reward_loss",
        "loss/value": "value_loss",
        "loss/termination": "termination_loss",
        "loss/total": "total_loss",
        "loss/pi": "pi_loss",
        "grad_norm": "grad_norm",
        "pi_grad_norm": "pi_grad_norm",
        "pi_entropy": "pi_entropy",
        "pi_scaled_entropy": "pi_scaled_entropy",
        "pi_scale": "pi_scale",
    }
    for ours, theirs in published.items():
        close(metrics[ours], case[f"update__{theirs}"])

    model.eval()
    task, action = model.task(case.task_id), case["action"][0]
    z = model.encode(case["obs"][0], task)
    close(z, case["after_update__z"])
    close(model.q_logits(z, action, task=task), case["after_update__q_logits"])
    close(model.q_logits(z, action, task=task, target=True), case["after_update__q_target_logits"])
    close(model.pi(z, eps, task).mean, case["after_update__pi_mean"])


CHECKS: tuple[Callable[[Case], None], ...] = (
    check_model_outputs,
    check_policy,
    check_discrete_regression,
    check_td_target,
    check_candidate_values,
    check_plan,
    check_one_update,
)
