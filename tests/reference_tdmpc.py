"""TD-MPC written down the straightforward way, in float32, to time against."""

from __future__ import annotations

import copy
import itertools

import torch
from torch import Tensor, nn

from tdmpc_ray.core.agents.tdmpc.config import ModelConfig, UpdateConfig
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import PlannerConfig


def mlp(sizes: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ELU()]
    return nn.Sequential(*layers[:-1])


class Model(nn.Module):
    def __init__(self, obs_dim: int, action_dim: int, cfg: ModelConfig) -> None:
        super().__init__()
        hidden, z, za = cfg.mlp_dim, cfg.latent_dim, cfg.latent_dim + action_dim
        self.encoder = mlp((obs_dim, cfg.enc_dim, z))
        self.dynamics, self.reward = mlp((za, hidden, hidden, z)), mlp((za, hidden, hidden, 1))
        self.policy = mlp((z, hidden, hidden, action_dim))
        self.qs = nn.ModuleList(
            nn.Sequential(
                nn.Linear(za, hidden),
                nn.LayerNorm(hidden),
                nn.Tanh(),
                nn.Linear(hidden, hidden),
                nn.ELU(),
                nn.Linear(hidden, 1),
            )
            for _ in range(2)
        )

    def next(self, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([z, action], -1)
        return self.dynamics(x), self.reward(x)

    def pi(self, z: Tensor, std: float = 0.05) -> Tensor:
        mean = torch.tanh(self.policy(z))
        return (mean + (std * torch.randn_like(mean)).clamp(-0.3, 0.3)).clamp(-1, 1)

    def values(self, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([z, action], -1)
        return self.qs[0](x), self.qs[1](x)


@torch.no_grad()
def plan(model: Model, obs: Tensor, prev_mean: Tensor, cfg: PlannerConfig, discount: float) -> Tensor:
    """The mean of one plan of one environment, (H, A)."""
    horizon, action_dim = prev_mean.shape
    num_pi, num = cfg.num_pi_trajs, cfg.num_samples - cfg.num_pi_trajs
    z0 = model.encoder(obs)
    z, actions = z0.repeat(num_pi, 1), torch.empty(horizon, num_pi, action_dim)
    for t in range(horizon):
        actions[t] = model.pi(z)
        z, _ = model.next(z, actions[t])
    z0 = z0.repeat(num + num_pi, 1)
    mean, std = torch.zeros(horizon, action_dim), cfg.max_std * torch.ones(horizon, action_dim)
    mean[:-1] = prev_mean[1:]
    for _ in range(cfg.iterations):
        drawn = mean[:, None] + std[:, None] * torch.randn(horizon, num, action_dim)
        candidates = torch.cat([drawn.clamp(-1, 1), actions], 1)
        z, value, weight = z0, torch.zeros(len(z0), 1), 1.0
        for t in range(horizon):
            z, reward = model.next(z, candidates[t])
            value, weight = value + weight * reward, weight * discount
        value = value + weight * torch.min(*model.values(z, model.pi(z)))
        best, index = value.squeeze(1).nan_to_num(0).topk(cfg.num_elites)
        elites = candidates[:, index]
        score = torch.softmax(cfg.temperature * best, 0)[None, :, None]
        new = (score * elites).sum(1)
        std = (score * (elites - new[:, None]).square()).sum(1).sqrt().clamp(cfg.min_std, cfg.max_std)
        mean = cfg.kept_of_mean * mean + (1 - cfg.kept_of_mean) * new
    return mean


class Update:
    """Steps a model on batches."""

    def __init__(self, model: Model, cfg: UpdateConfig, discount: float) -> None:
        self.model, self.cfg, self.discount = model, cfg, discount
        self.target = copy.deepcopy(model).requires_grad_(False)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=cfg.lr)
        self.pi_optimizer = torch.optim.Adam(model.policy.parameters(), lr=cfg.lr)
        self.updates = 0

    def step(self, batch: Batch) -> None:
        model, target, cfg = self.model, self.target, self.cfg
        horizon = len(batch.action)
        self.optimizer.zero_grad()
        z = model.encoder(batch.obs[0])
        zs, loss = [z.detach()], torch.zeros(())
        for t in range(horizon):
            q1, q2 = model.values(z, batch.action[t])
            z, reward = model.next(z, batch.action[t])
            with torch.no_grad():
                next_z = model.encoder(batch.obs[t + 1])
                value = torch.min(*target.values(next_z, model.pi(next_z)))
                td = batch.reward[t] + self.discount * value
                wanted = target.encoder(batch.obs[t + 1])
            zs.append(z.detach())
            errors = cfg.consistency_coef * (z - wanted).square().mean(-1, keepdim=True)
            errors = errors + cfg.reward_coef * (reward - batch.reward[t]).square()
            errors = errors + cfg.value_coef * ((q1 - td).square() + (q2 - td).square())
            loss = loss + cfg.rho**t * errors.mean()
        (loss / horizon).backward()
        nn.utils.clip_grad_norm_(model.parameters(), cfg.grad_clip_norm)
        self.optimizer.step()
        self.pi_optimizer.zero_grad()
        model.qs.requires_grad_(False)
        pi_loss = torch.zeros(())
        for t, z in enumerate(zs):
            pi_loss = pi_loss - cfg.rho**t * torch.min(*model.values(z, model.pi(z))).mean()
        pi_loss.backward()
        nn.utils.clip_grad_norm_(model.policy.parameters(), cfg.grad_clip_norm)
        self.pi_optimizer.step()
        model.qs.requires_grad_(True)
        if self.updates % cfg.target_every == 0:
            with torch.no_grad():
                for theirs, ours in zip(target.parameters(), model.parameters(), strict=True):
                    theirs.lerp_(ours, cfg.tau)
        self.updates += 1
