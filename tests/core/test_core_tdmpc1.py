"""TD-MPC, number by number against the published code (tests/fixtures/official_tdmpc1/README.md)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tdmpc_ray.core.agents import find_agent
from tdmpc_ray.core.agents.tdmpc.config import ModelConfig, UpdateConfig
from tdmpc_ray.core.agents.tdmpc.functions import LatentFunctions
from tdmpc_ray.core.agents.tdmpc.networks import TDMPCNetworks
from tdmpc_ray.core.agents.tdmpc.official import from_official
from tdmpc_ray.core.agents.tdmpc.update import UpdateNoise, Updater, targets_of
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import PlannerConfig, agent_config
from tdmpc_ray.core.export import make_program
from tdmpc_ray.core.planners import PlanNoise
from tdmpc_ray.errors import UserError

FIXTURES = Path(
    os.environ.get("TDMPC_RAY_TDMPC1_FIXTURES", Path(__file__).parents[1] / "fixtures" / "official_tdmpc1")
)
AGENT = find_agent("tdmpc")


class Case:
    def __init__(self, name: str) -> None:
        self.file = FIXTURES / f"{name}.pt"
        self.cfg = json.loads((FIXTURES / f"{name}.json").read_text())
        recorded = np.load(FIXTURES / f"{name}.npz")
        self.arrays = {key: torch.from_numpy(recorded[key]) for key in recorded.files}
        cfg = self.cfg
        self.is_state = cfg["modality"] == "state"
        width = "enc_dim" if self.is_state else "num_channels"
        sizes = {name: cfg[name] for name in ("mlp_dim", "latent_dim", width)}
        self.model_cfg = ModelConfig(**sizes)
        self.update_cfg = UpdateConfig(batch_size=cfg["batch_size"], lr=cfg["lr"], rho=cfg["rho"])
        self.networks = TDMPCNetworks(cfg["obs_shape"], cfg["action_dim"], self.model_cfg)
        state = torch.load(self.file, weights_only=True)
        self.networks.online.load_state_dict(from_official(state["model"]))
        assert self.networks.target is not None
        self.networks.target.load_state_dict(from_official(state["model_target"]))

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.arrays[key]

    def batch(self) -> Batch:
        horizon = self.cfg["horizon"]
        obs, action, reward = self["obs"][: horizon + 1], self["action"][:horizon], self["reward"][:horizon]
        return Batch(obs, action, reward, torch.zeros_like(reward), weight=self["weights"])

    def noise(self) -> UpdateNoise:
        eps, horizon = self["pi_eps"], self.cfg["horizon"]
        return UpdateNoise(eps.expand(horizon, -1, -1), eps.expand(horizon + 1, -1, -1))


@pytest.fixture(params=["state", "pixels"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def close(ours: torch.Tensor, published: torch.Tensor, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours.detach(), published, rtol=rtol, atol=atol)


@torch.no_grad()
def test_outputs(case: Case) -> None:
    online, target, action = case.networks.online, case.networks.target, case["action"][0]
    assert target is not None
    z = online.encode(case["obs"][0])
    close(z, case["z"])
    close(online.next(z, action), case["next_z"])
    close(online.predict_reward(z, action), case["reward_pred"])
    close(online.values(z, action), torch.stack([case["q1"], case["q2"]]))
    close(target.values(z, action), torch.stack([case["q1_target"], case["q2_target"]]))
    close(target.encode(case["obs"][0]), case["z_target"])


@torch.no_grad()
def test_policy_at_three_stds(case: Case) -> None:
    online = case.networks.online
    close(online.policy_mean(case["z"]), case["pi_mean"])
    close(online.pi(case["z"], 0.05, case["pi_eps"]), case["pi_action"])
    close(online.pi(case["z"], 0.5, case["pi_eps"]), case["pi_action_std05"])


def test_td_target(case: Case) -> None:
    targets = targets_of(case.networks, case.batch(), case.noise(), case.cfg["discount"])
    close(targets.value[0], case["td_target"])


@torch.no_grad()
def test_values_of_candidates(case: Case) -> None:
    functions = LatentFunctions(case.networks.online, case.cfg["action_dim"], 0.05)
    z = case.networks.encode(case["obs"][0, :1])
    actions = case["value_actions"].unsqueeze(1)
    total, last, weight = functions.rollout(z, actions, torch.full((1, 1), case.cfg["discount"]))
    eps = case["pi_eps"][0].expand(1, actions.shape[2], -1)
    value = total + weight * functions.terminal_value(last, eps, torch.tensor([0, 1]))
    close(value[0].unsqueeze(-1), case["value"])


@pytest.mark.parametrize(("prefix", "step"), [("plan_", 12_000), ("late_plan_", 30_000)])
def test_plans(case: Case, prefix: str, step: int) -> None:
    cfg, eps = case.cfg, case["pi_eps"][0]
    num_pi = int(cfg["mixture_coef"] * cfg["num_samples"])
    planner = PlannerConfig.from_values(
        {
            "horizon": {"linear": [1, 5, 25_000]},
            "min_std": {"linear": [0.5, 0.05, 25_000]},
            "num_samples": cfg["num_samples"] + num_pi,
            "num_pi_trajs": num_pi,
            "num_elites": cfg["num_elites"],
            "iterations": cfg["iterations"],
            "temperature": cfg["temperature"],
            "momentum": cfg["momentum"],
        }
    ).at(step)
    assert planner.horizon == case[prefix + "horizon"]
    assert planner.min_std == pytest.approx(float(case[prefix + "min_std"]))
    noise = PlanNoise(
        pi=eps.expand(planner.horizon, 1, num_pi, -1),
        candidates=case[prefix + "noise"].unsqueeze(2),
        value_pi=eps.expand(planner.iterations, 1, planner.num_samples, -1),
        heads=torch.tensor([[0, 1]]).expand(planner.iterations, -1),
        gumbel=torch.zeros(1, planner.num_elites),  # the elite of largest weight
        explore=torch.zeros(1, cfg["action_dim"]),
    )
    prev_mean = torch.zeros(1, 5, cfg["action_dim"])
    prev_mean[0, : planner.horizon] = case[prefix + "prev_mean"]
    with torch.no_grad():
        z = case.networks.encode(case["obs"][0, :1])
        plan = AGENT.decide(
            case.networks, z, prev_mean, planner, noise, discount=cfg["discount"], explore=False
        )
    close(plan.mean[0, : planner.horizon], case[prefix + "mean"], rtol=1e-3, atol=1e-4)
    close(plan.action[0], case[prefix + "action_best"].clamp(-1, 1), rtol=1e-3, atol=1e-4)
    assert plan.mean.shape == (1, 5, cfg["action_dim"])
    assert not plan.mean[0, planner.horizon :].any()


def test_an_update(case: Case) -> None:
    updater = Updater(case.networks, case.update_cfg, case.cfg["discount"])
    metrics = updater.step(case.batch(), case.noise())
    for ours, theirs in (
        ("consistency", "consistency_loss"),
        ("reward", "reward_loss"),
        ("value", "value_loss"),
        ("pi", "pi_loss"),
        ("total", "weighted_loss"),
    ):
        close(metrics[f"loss/{ours}"], case[f"update__{theirs}"])
    close(metrics["grad_norm"], case["update__grad_norm"])
    assert updater.td_error is not None
    close(updater.td_error + 1e-6, case["priority"].squeeze(-1))
    with torch.no_grad():
        online, target, action = case.networks.online, case.networks.target, case["action"][0]
        assert target is not None
        z = online.encode(case["obs"][0])
        close(z, case["after_update__z"])
        close(online.next(z, action), case["after_update__next_z"])
        close(online.predict_reward(z, action), case["after_update__reward_pred"])
        close(online.values(z, action)[0], case["after_update__q1"])
        close(target.values(z, action)[0], case["after_update__q1_target"])
        # With pixels one gradient of the policy is 5e-7 of the largest: float32 cannot tell its share of
        # Adam's first step, which is 3e-4 for all others.
        close(online.policy_mean(z), case["after_update__pi_mean"], atol=1e-5 if case.is_state else 2e-4)


def test_published_checkpoints_come_and_go_bit_by_bit(case: Case) -> None:
    published = AGENT.read_published(case.file)
    assert (published.model, published.num_tasks) == (case.model_cfg, 0)
    assert published.obs == ("state" if case.is_state else "rgb")
    networks = AGENT.make_networks(case.cfg["obs_shape"], case.cfg["action_dim"], published.model)
    networks.load_state_dict(published.parameters)
    written, file = AGENT.to_published(networks), torch.load(case.file, weights_only=True)
    for name in ("model", "model_target"):
        assert list(written[name]) == list(file[name])
        assert all(torch.equal(written[name][key], value) for key, value in file[name].items())


@pytest.mark.parametrize("content", [{"model": {}}, {"model": {"a": 1}, "model_target": {}}, [1], {}])
def test_a_foreign_file_is_named(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match="holds no checkpoint of the published TD-MPC code"):
        AGENT.read_published(tmp_path / "other.pt")


def test_the_target_moves_at_every_second_update() -> None:
    case = Case("state")
    updater = Updater(case.networks, case.update_cfg, 0.99)
    target = case.networks.target
    assert target is not None
    moved = []
    for _ in range(4):
        before = target.reward[0].weight.clone()
        updater.step(case.batch(), case.noise())
        moved.append(not torch.equal(before, target.reward[0].weight))
    assert moved == [True, False, True, False]
    again = Updater(case.networks, case.update_cfg, 0.99)
    again.updates.copy_(updater.updates)
    assert int(again.updates) == 4


def test_a_joint_step_is_that_of_both() -> None:
    """Before the first step, Adam gives both gradients the same form, whichever optimizer has them."""
    apart, joint = Case("state"), Case("state")
    cfg: dict[str, Any] = {"grad_clip_norm": 1e9, "target_every": 1}
    Updater(apart.networks, UpdateConfig(**cfg), 0.99).step(apart.batch(), apart.noise())
    Updater(joint.networks, UpdateConfig(joint=True, **cfg), 0.99).step(joint.batch(), joint.noise())
    close(joint.networks.online.dynamics[0].weight, apart.networks.online.dynamics[0].weight)
    # The policy of a joint step learns from the values before it.
    difference = joint.networks.online.policy[0].weight - apart.networks.online.policy[0].weight
    assert 0 < difference.abs().max() < 3e-3


def test_the_published_defaults() -> None:
    cfg = agent_config("1", algorithm="tdmpc")
    assert (cfg.planner.horizon, cfg.planner.num_samples, cfg.planner.min_std) == (5, 537, 0.05)
    assert (cfg.planner.at(0).horizon, cfg.planner.at(0).min_std) == (1, 0.5)
    assert (cfg.planner.at(12_500).horizon, cfg.planner.at(1e9).horizon) == (3, 5)
    assert (cfg.data.priority_alpha, cfg.data.priority_beta, cfg.update.batch_size) == (0.6, 0.4, 512)
    networks = AGENT.make_networks((24,), 6, cfg.model)
    online = networks.online
    action = torch.rand(3, 6)
    z = torch.randn(3, 50)
    assert not online.predict_reward(z, action).any()
    assert not online.values(z, action).any()
    weight = online.dynamics[2].weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(512), atol=1e-4, rtol=0)


def test_an_exported_policy_holds_no_more_than_it_needs() -> None:
    cfg = agent_config("tiny", algorithm="tdmpc")
    networks = AGENT.make_networks((3,), 1, cfg.model)
    assert networks.num_params() == sum(p.numel() for p in networks.online.parameters())
    program = make_program(AGENT, networks, cfg.planner, 0.99, "policy")
    held = {name.split(".")[-3] for name, _ in program.module.named_parameters()}
    assert held == {"encoder", "policy"}
    action = program.module(torch.ones(1, 3))[0]
    torch.testing.assert_close(action, AGENT.policy_mean(networks, networks.encode(torch.ones(1, 3)))[0])


def test_what_tdmpc_has_not_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="cannot foresee that a task ends: use algorithm tdmpc2"):
        agent_config("1", overrides={"model.episodic": True}, algorithm="tdmpc")
    with pytest.raises(UserError, match="learns one task"):
        AGENT.make_networks((24,), 6, ModelConfig(), action_dims=(6, 3))
