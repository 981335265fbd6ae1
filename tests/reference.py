"""TD-MPC2 written down the straightforward way: one environment, one operation per line of the paper.

The oracle of the equivalence tests and the yardstick of the benchmark. It shares nothing with the package but
the weights of a `WorldModel` (single task, vectors), and spends what the published code spends: all heads
where two count, a latent per candidate from the first step on, the policy's trajectories valued anew in every
iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc_ray.core.agents.tdmpc2.config import UpdateConfig
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import PlannerConfig
from tdmpc_ray.core.planners import PlanNoise


class Networks:
    """The networks of a world model, evaluated by plain PyTorch."""

    def __init__(self, model: WorldModel) -> None:
        self.model, self.cfg = model, model.cfg

    def encode(self, obs: Tensor) -> Tensor:
        return self._simnorm(self._mlp(self.model.encoder, obs))

    def next(self, z: Tensor, action: Tensor) -> Tensor:
        return self._simnorm(self._mlp(self.model.dynamics, torch.cat([z, action], -1)))

    def reward_logits(self, z: Tensor, action: Tensor) -> Tensor:
        return self._mlp(self.model.reward_head, torch.cat([z, action], -1))

    def pi(self, z: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Action, and scaled entropy."""
        low, high = self.cfg.log_std_min, self.cfg.log_std_max
        mean, log_std = self._mlp(self.model.policy, z).chunk(2, -1)
        log_std = low + 0.5 * (high - low) * (torch.tanh(log_std) + 1)
        log_prob = (-0.5 * eps**2 - log_std - 0.5 * torch.log(torch.tensor(2 * torch.pi))).sum(
            -1, keepdim=True
        )
        scaled = log_prob * mean.shape[-1]
        action = torch.tanh(mean + log_std.exp() * eps)
        log_prob = log_prob - torch.log(F.relu(1 - action**2) + 1e-6).sum(-1, keepdim=True)
        return action, -log_prob * (scaled / log_prob)

    def q_logits(self, z: Tensor, action: Tensor, *, target: bool = False, detach: bool = False) -> Tensor:
        """All heads, (num_q, ..., bins)."""
        ensemble = self.model.target_q if target else self.model.q_ensemble
        assert ensemble is not None
        x = torch.cat([z, action], -1)
        layers = [
            [(p.detach() if detach else p).unbind() for p in layer.parameters()] for layer in ensemble.layers
        ]
        drops = self.model.training and not target
        return torch.stack([self._head(x, layers, k, drops) for k in range(self.cfg.num_q)])

    def _head(self, x: Tensor, layers: list[list[tuple[Tensor, ...]]], k: int, drops: bool) -> Tensor:
        for i, parameters in enumerate(layers):
            weight, bias, *norm = (p[k] for p in parameters)
            x = F.linear(x, weight, bias)
            if i == 0 and drops:
                # PyTorch's own dropout draws its mask five times as slowly as this.
                x = x * torch.rand_like(x).ge_(self.cfg.dropout).div_(1 - self.cfg.dropout)
            if norm:
                x = _mish(F.layer_norm(x, x.shape[-1:], *norm))
        return x

    def value(self, logits: Tensor) -> Tensor:
        """Expectation of two-hot logits."""
        mean = (F.softmax(logits, -1) * self.model.bins).sum(-1, keepdim=True)
        return torch.sign(mean) * (torch.exp(torch.abs(mean)) - 1)

    def cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Against the two-hot encoding of scalars."""
        cfg = self.cfg
        width = (cfg.vmax - cfg.vmin) / (cfg.num_bins - 1)
        x = torch.clamp(torch.sign(target) * torch.log(1 + torch.abs(target)), cfg.vmin, cfg.vmax)
        lower = torch.floor((x - cfg.vmin) / width).clamp(max=cfg.num_bins - 2)
        share = (x - cfg.vmin) / width - lower
        encoded = torch.zeros(*target.shape[:-1], cfg.num_bins)
        encoded = encoded.scatter(-1, lower.long(), 1 - share).scatter(-1, lower.long() + 1, share)
        return -(encoded * F.log_softmax(logits, -1)).sum(-1, keepdim=True)

    def _mlp(self, layers: nn.Sequential, x: Tensor) -> Tensor:
        for i, layer in enumerate(layers):
            x = F.linear(x, layer.weight, layer.bias)
            if hasattr(layer, "ln"):
                x = F.layer_norm(x, x.shape[-1:], layer.ln.weight, layer.ln.bias)
            if i + 1 < len(layers):
                x = _mish(x)
        return x

    def _simnorm(self, x: Tensor) -> Tensor:
        groups = x.view(*x.shape[:-1], -1, self.cfg.simnorm_dim)
        if not torch.is_grad_enabled():  # PyTorch's own takes a tenth of a plan for groups as small as these
            groups = (groups - groups.amax(-1, keepdim=True)).exp_()
            return groups.div_(groups.sum(-1, keepdim=True)).view(*x.shape)
        return F.softmax(groups, -1).view(*x.shape)


class _Mish(torch.autograd.Function):
    """x tanh(softplus(x)) = x - x / (1 + e^x + e^2x / 2). PyTorch's own takes a quarter of a plan and
    would make this yardstick an easy one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        e = x.clamp(max=20).exp_()
        inverse = torch.addcmul(e, e, e, value=0.5).add_(1).reciprocal_()
        ctx.save_for_backward(x, e, inverse)
        return torch.addcmul(x, x, inverse, value=-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        x, e, inverse = ctx.saved_tensors
        slope = torch.addcmul(e, e, e).mul_(x).mul_(inverse).sub_(1).mul_(inverse).add_(1)
        return slope.mul_(grads[0])


def _mish(x: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        return _Mish.apply(x)
    e = x.exp()  # in place from here on: fewer buffers
    return x.addcdiv_(x, e.addcmul_(e, e, value=0.5).add_(1), value=-1)


@torch.no_grad()
def plan(
    model: WorldModel, z: Tensor, prev_mean: Tensor, cfg: PlannerConfig, noise: PlanNoise, discount: float
) -> tuple[Tensor, Tensor]:
    """One MPPI plan of one environment: z (1, Z), prev_mean (H, A) to action (A,) and mean (H, A)."""
    net, num_pi = Networks(model), cfg.num_pi_trajs
    z = z.repeat(cfg.num_samples, 1)
    mean = torch.cat([prev_mean[1:], torch.zeros_like(prev_mean[:1])])
    std = torch.full_like(mean, cfg.max_std)
    pi_actions, pi_z = [], z[:num_pi]
    for t in range(cfg.horizon):
        action, _ = net.pi(pi_z, noise.pi[t, 0])
        pi_actions.append(action)
        pi_z = net.next(pi_z, action)
    for i in range(len(noise.candidates)):
        sampled = (mean.unsqueeze(1) + std.unsqueeze(1) * noise.candidates[i, :, 0]).clamp(-1, 1)
        actions = torch.cat([torch.stack(pi_actions), sampled], 1)

        value, weight, rolled = torch.zeros(cfg.num_samples, 1), 1.0, z
        for t in range(cfg.horizon):
            value = value + weight * net.value(net.reward_logits(rolled, actions[t]))
            rolled = net.next(rolled, actions[t])
            weight *= discount
        last, _ = net.pi(rolled, noise.value_pi[i, 0])
        q = net.value(net.q_logits(rolled, last))  # all heads, and two of them count
        value = (value + weight * q[noise.heads[i]].mean(0)).nan_to_num(0.0).squeeze(1)

        elite_value, elite = torch.topk(value, cfg.num_elites)
        elite_actions = actions[:, elite]
        score = torch.exp(cfg.temperature * (elite_value - elite_value.max()))
        score = (score / score.sum()).view(1, -1, 1)
        mean = (score * elite_actions).sum(1)
        std = (score * (elite_actions - mean.unsqueeze(1)) ** 2).sum(1).sqrt().clamp(cfg.min_std, cfg.max_std)
    chosen = (torch.log(score.flatten()) + noise.gumbel[0]).argmax()
    action = elite_actions[0, chosen] + std[0] * noise.explore[0]
    return action.clamp(-1, 1), mean


class Update:
    """Gradient steps with one unfused Adam per loss."""

    def __init__(self, model: WorldModel, cfg: UpdateConfig, discount: float) -> None:
        self.model, self.cfg, self.discount = model, cfg, discount
        self.net, self.scale = Networks(model), torch.ones(())
        encoder = list(model.encoder.parameters())
        self.world = model.world_parameters()
        rest = [p for p in self.world if all(p is not q for q in encoder)]
        groups = [{"params": encoder, "lr": cfg.lr * cfg.enc_lr_scale}, {"params": rest}]
        self.optimizer = torch.optim.Adam(groups, lr=cfg.lr)
        self.pi_optimizer = torch.optim.Adam(model.policy.parameters(), lr=cfg.lr, eps=cfg.pi_eps)

    def step(self, batch: Batch, noise: UpdateNoise) -> dict[str, Tensor]:
        """World model, policy, target heads."""
        net, cfg, horizon = self.net, self.cfg, batch.horizon
        self.model.train()
        with torch.no_grad():
            next_z = net.encode(batch.obs[1:])
            action, _ = net.pi(next_z, noise.target_eps)
            q = net.value(net.q_logits(next_z, action, target=True))[noise.target_heads].amin(0)
            target = batch.reward + self.discount * (1 - batch.terminated) * q

        zs = [net.encode(batch.obs[0])]
        consistency: Tensor | float = 0.0
        for t in range(horizon):
            zs.append(net.next(zs[t], batch.action[t]))
            consistency = consistency + F.mse_loss(zs[-1], next_z[t]) * cfg.rho**t
        rolled = torch.stack(zs[:-1])
        q_logits = net.q_logits(rolled, batch.action)
        reward_logits = net.reward_logits(rolled, batch.action)
        reward: Tensor | float = 0.0
        value: Tensor | float = 0.0
        for t in range(horizon):
            reward = reward + net.cross_entropy(reward_logits[t], batch.reward[t]).mean() * cfg.rho**t
            for head in q_logits:
                value = value + net.cross_entropy(head[t], target[t]).mean() * cfg.rho**t
        consistency, reward = consistency / horizon, reward / horizon
        value = value / (horizon * len(q_logits))
        total = cfg.consistency_coef * consistency + cfg.reward_coef * reward + cfg.value_coef * value
        grad_norm = self._descend(self.optimizer, self.world, total)

        latents = torch.stack(zs).detach()
        action, scaled_entropy = net.pi(latents, noise.pi_eps)
        q = net.value(net.q_logits(latents, action, detach=True))[noise.pi_heads].mean(0)
        low, high = torch.quantile(q[0].detach(), torch.tensor([0.05, 0.95]))
        self.scale = torch.lerp(self.scale, (high - low).clamp(min=1.0), cfg.tau)
        rho = torch.pow(cfg.rho, torch.arange(len(latents)))
        objective = (q / self.scale + cfg.entropy_coef * scaled_entropy).mean((1, 2))
        pi = -(objective * rho).mean()
        pi_grad_norm = self._descend(self.pi_optimizer, list(self.model.policy.parameters()), pi)
        with torch.no_grad():
            for theirs, ours in zip(
                self.model.target_q.parameters(), self.model.q_ensemble.parameters(), strict=True
            ):
                theirs.lerp_(ours, cfg.tau)
        return {
            "loss/consistency": consistency.detach(),
            "loss/reward": reward.detach(),
            "loss/value": value.detach(),
            "loss/total": total.detach(),
            "loss/pi": pi.detach(),
            "grad_norm": grad_norm,
            "pi_grad_norm": pi_grad_norm,
        }

    def _descend(self, optimizer: torch.optim.Optimizer, params: Sequence[Tensor], loss: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(params, self.cfg.grad_clip_norm)
        optimizer.step()
        return norm
