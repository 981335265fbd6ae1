"""BMPC, number by number against the published code (tests/fixtures/official_bmpc/README.md)."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tdmpc_ray.core import planners
from tdmpc_ray.core.agents.bmpc.agent import AGENT
from tdmpc_ray.core.agents.bmpc.config import ModelConfig as BMPCModelConfig
from tdmpc_ray.core.agents.bmpc.functions import BMPCFunctions
from tdmpc_ray.core.agents.bmpc.losses import PlannerGaussian, divergence, imagined_target, imitation_loss
from tdmpc_ray.core.agents.bmpc.networks import BMPCNetworks
from tdmpc_ray.core.agents.bmpc.reanalysis import LOG_STD_RANGE, reanalyze
from tdmpc_ray.core.agents.bmpc.update import Updater
from tdmpc_ray.core.agents.tdmpc2.config import ModelConfig, UpdateConfig
from tdmpc_ray.core.agents.tdmpc2.official import from_official
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import PlannerConfig
from tdmpc_ray.core.planners import PlanNoise

FIXTURES = Path(
    os.environ.get("TDMPC_RAY_BMPC_FIXTURES", Path(__file__).parents[1] / "fixtures" / "official_bmpc")
)


class Case:
    def __init__(self) -> None:
        cfg = json.loads((FIXTURES / "single.json").read_text())
        recorded = np.load(FIXTURES / "single.npz")
        self.arrays = {key: torch.from_numpy(recorded[key]) for key in recorded.files}

        def section(kind: type) -> Any:
            names = {field.name for field in dataclasses.fields(kind)} - {"compile"}
            return kind(**{name: cfg[name] for name in names if name in cfg})

        self.planner, self.update = section(PlannerConfig), section(UpdateConfig)
        self.networks = BMPCNetworks(
            cfg["obs_shape"]["state"], cfg["action_dim"], section(ModelConfig)
        ).eval()
        state = torch.load(FIXTURES / "single.pt", weights_only=True)["model"]
        kept = {key: value for key, value in state.items() if not key.startswith("expl_")}
        self.networks.load_state_dict(from_official(kept))
        self.heads, self.discount = torch.tensor([0, 1]), self["discount"]

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.arrays[key]

    def noise(self, candidates: torch.Tensor) -> PlanNoise:
        """Of N environments: candidates (I, H, N, S, A)."""
        iterations, horizon, num, _, size = candidates.shape
        cfg, eps = self.planner, self["pi_eps"][0]
        return PlanNoise(
            pi=eps.expand(horizon, num, cfg.num_pi_trajs, -1),
            candidates=candidates,
            value_pi=eps.expand(iterations, num, cfg.num_samples, -1),
            heads=self.heads.expand(iterations, 2),
            gumbel=eps.new_zeros(num, cfg.num_elites),
            explore=eps.new_zeros(num, size),
        )


@pytest.fixture
def case() -> Case:
    return Case()


def close(ours: torch.Tensor, published: torch.Tensor, rtol: float = 1e-4, atol: float = 2e-6) -> None:
    torch.testing.assert_close(ours.detach(), published, rtol=rtol, atol=atol)


def test_outputs(case: Case) -> None:
    networks, nothing = case.networks, torch.empty(0)
    z = networks.encode(case["obs"][0])
    close(z, case["z"])
    close(networks.q_logits(z, nothing), case["v_logits"])
    close(networks.q_logits(z, nothing, target=True), case["v_target_logits"])
    close(networks.values(z, case.heads).mean(0), case["v_avg"])


def test_the_policy_and_its_wider_proposals(case: Case) -> None:
    sample = case.networks.pi(case["z"], case["pi_eps"])
    close(sample.action, case["pi_action"])
    close(sample.mean, case["pi_mean"])
    close(sample.log_std, case["pi_log_std"])
    close(sample.entropy, case["pi_entropy"])
    close(sample.scaled_entropy, case["pi_scaled_entropy"])
    close(case.networks.propose(case["z"], case["pi_eps"], LOG_STD_RANGE), case["pi_action_wide"])


def test_imagined_targets(case: Case) -> None:
    z, eps = case.networks.encode(case["obs"][:-1]), case["pi_eps"].expand(3, -1, -1)
    close(imagined_target(case.networks, z, case.discount, eps, case.heads), case["td_target"])


def test_values_of_candidates_and_a_plan(case: Case) -> None:
    functions, actions = BMPCFunctions(case.networks), case["value_actions"]
    with torch.no_grad():
        z = case.networks.encode(case["obs"][0, :1])
        total, last, weight = functions.rollout(z, actions.unsqueeze(1), case.discount.view(1, 1))
        value = total + weight * functions.terminal_value(last, case["pi_eps"], case.heads)
        close(value.T, case["value"])
        noise, before = case.noise(case["plan_noise"].unsqueeze(2)), case["plan_prev_mean"].unsqueeze(0)
        plan = planners.plan(functions, z, before, case.planner, noise, discount=case.discount, explore=False)
    close(plan.mean[0], case["plan_mean"], rtol=1e-3, atol=1e-4)
    close(plan.action[0], case["plan_action_best"], rtol=1e-3, atol=1e-4)
    close(torch.cat([plan.action[0], plan.std[0, 0]]), case["plan_dist"], rtol=1e-3, atol=1e-4)


def test_reanalysis(case: Case) -> None:
    z = case.networks.encode(case["obs"][:3, :5])
    noise = case.noise(case["reanalyze_noise"].transpose(1, 2))
    found = reanalyze(case.networks, z, case.planner, noise, case.discount)
    close(found, case["reanalyze_dist"], rtol=1e-3, atol=1e-4)


def test_an_update(case: Case) -> None:
    eps, networks = case["pi_eps"], case.networks
    planned = torch.cat([case["planner_mean"], case["planner_std"]], -1)
    batch = Batch(case["obs"], case["action"], case["reward"], torch.zeros(3, 16, 1), extra=planned)
    noise = UpdateNoise(eps.expand(3, -1, -1), case.heads, eps.expand(4, -1, -1), case.heads)
    metrics = Updater(networks, case.update, float(case.discount)).step(batch, noise)
    for name in ("consistency", "reward", "value", "total", "pi"):
        close(metrics[f"loss/{name}"], case[f"update__{name}_loss"])
    for name in ("grad_norm", "pi_grad_norm", "pi_entropy", "pi_scaled_entropy", "pi_scale"):
        close(metrics[name], case[f"update__{name}"])
    networks.eval()
    z, nothing = networks.encode(case["obs"][0]), torch.empty(0)
    close(z, case["after_update__z"])
    close(networks.q_logits(z, nothing), case["after_update__v_logits"])
    close(networks.q_logits(z, nothing, target=True), case["after_update__v_target_logits"])
    sample = networks.pi(z, eps)
    close(sample.mean, case["after_update__pi_mean"])
    close(sample.log_std, case["after_update__pi_log_std"])


def test_published_checkpoints_come_and_go_bit_by_bit() -> None:
    file = FIXTURES / "single.pt"
    published = AGENT.read_published(file)
    model = published.model
    assert isinstance(model, BMPCModelConfig)
    assert (model.num_q, model.log_std_min, model.log_std_max, published.obs) == (2, -3.0, 1.0, "state")
    networks = AGENT.make_networks((7,), 3, dataclasses.replace(model, simnorm_dim=8))
    networks.load_state_dict(published.parameters)
    theirs = torch.load(file, weights_only=True)["model"]
    ours = AGENT.to_published(networks)["model"]
    kept = {key for key in theirs if not key.startswith(("_Qs.module", "_detach_Qs", "_target_Qs.module"))}
    assert kept <= set(ours)
    for key in kept:
        assert torch.equal(ours[key], theirs[key]), key


def test_a_policy_that_follows_the_planner_gets_near_to_it() -> None:
    """On latents that stay as they are: the divergence falls, and the mean goes to the plans."""
    torch.manual_seed(0)
    networks = BMPCNetworks((5,), 2, ModelConfig(enc_dim=16, mlp_dim=32, latent_dim=16, num_bins=21, num_q=2))
    zs, planned = (
        networks.encode(torch.rand(3, 32, 5)).detach(),
        PlannerGaussian(torch.full((3, 32, 2), 0.5), torch.full((3, 32, 2), 0.2)),
    )
    optimizer = torch.optim.Adam(networks.policy.parameters(), lr=3e-3)
    scale, eps = torch.ones(()), torch.randn(3, 32, 2)
    for _ in range(200):
        loss = imitation_loss(networks, zs, planned, scale, UpdateConfig(), eps)
        scale = loss.scale
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    sample = networks.pi(zs, eps)
    assert (sample.mean - 0.5).abs().max() < 0.05
    assert divergence(sample.mean, sample.log_std, planned).mean() < 0.05


def test_the_divergence_is_that_of_two_gaussians() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_std, aim, spread = (torch.randn(4, 5, 3, generator=generator) for _ in range(4))
    planned = PlannerGaussian(aim, spread.exp())
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, log_std.exp()), normal(aim, planned.std))
    close(divergence(mean, log_std, planned), expected.mean(-1, keepdim=True))
    mask = torch.tensor([1.0, 1.0, 0.0])
    close(divergence(mean, log_std, planned, mask), expected[..., :2].mean(-1, keepdim=True))


def test_sets_of_tasks_and_terminations_as_the_mathematics_has_them() -> None:
    cfg = ModelConfig(enc_dim=16, mlp_dim=16, latent_dim=16, task_dim=4, num_bins=21, num_q=2, episodic=True)
    networks = BMPCNetworks((5,), 3, cfg, action_dims=[3, 1])
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter.normal_(std=0.3)
    ids = torch.tensor([0, 1, 1, 0])
    task, z = networks.task(ids), torch.rand(4, 16)
    heads, eps = torch.tensor([0, 1]), torch.randn(4, 3)
    sample = networks.pi(z, eps, task)
    assert (sample.action[1:3, 1:] == 0).all()
    alone = networks.pi(z[1:2], eps[1:2], networks.task(ids[1:2]))
    close(sample.scaled_entropy[1:2], alone.scaled_entropy)
    target = imagined_target(networks, z, torch.full((4, 1), 0.9), eps, heads, task)
    next_z = networks.next(z, sample.action, task)
    ends = networks.termination_logit(next_z, task) > 0
    reward = networks.reward(z, sample.action, task)
    assert 0 < ends.sum() < 4 or torch.equal(target[ends], reward[ends])
    close(target[ends], reward[ends].detach())
    planned = torch.cat([torch.zeros(3, 4, 3), torch.ones(3, 4, 3)], -1)
    batch = Batch(
        torch.rand(4, 4, 5),
        torch.rand(3, 4, 3),
        torch.rand(3, 4, 1),
        torch.zeros(3, 4, 1),
        ids,
        extra=planned,
    )
    noise = UpdateNoise.sample(networks, 3, 4, torch.Generator().manual_seed(0))
    metrics = Updater(networks, UpdateConfig(), [0.9, 0.95]).step(batch, noise)
    assert all(torch.isfinite(value) for value in metrics.values())
    assert metrics["skipped"] == 0
