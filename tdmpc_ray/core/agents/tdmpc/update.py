"""One gradient step of TD-MPC (Hansen et al., 2022, algorithm 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from tdmpc_ray.core.agents.tdmpc.config import UpdateConfig
from tdmpc_ray.core.agents.tdmpc.networks import LatentModel, TDMPCNetworks
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.nn.compiled import Compiled, begin_step, compiles
from tdmpc_ray.core.nn.descent import Descent
from tdmpc_ray.core.nn.pixels import draw_shift, shift_images
from tdmpc_ray.core.nn.precision import products_in
from tdmpc_ray.core.parallel import Replicas

MAX_SHIFT = 4  # pixels, in each direction
_LARGEST = 1e4  # of each loss and priority of a sequence


@dataclass(frozen=True)
class UpdateNoise:
    """Everything random in one update.

    Attributes:
        target_eps: standard-normal, of the policy action in the TD target, (H, B, A).
        pi_eps: standard-normal, of the policy loss, (H + 1, B, A).
        shift: pixels to move each image by, (H + 1, B, 2); None for vectors.
    """

    target_eps: Tensor
    pi_eps: Tensor
    shift: Tensor | None = None

    @classmethod
    def sample(
        cls, networks: TDMPCNetworks, horizon: int, batch_size: int, generator: torch.Generator
    ) -> UpdateNoise:
        """Draw the noise of one update on the generator's device."""
        shape = (2 * horizon + 1, batch_size, networks.action_dim)
        eps = torch.randn(shape, generator=generator, device=generator.device)
        shift = None
        if len(networks.obs_shape) == 3:
            shift = draw_shift((horizon + 1, batch_size), generator, MAX_SHIFT)
        return cls(eps[:horizon], eps[horizon:], shift)


def make_optimizers(networks: TDMPCNetworks, cfg: UpdateConfig) -> dict[str, torch.optim.Optimizer]:
    """Adam for the model and Adam for the policy; a joint step has one for both."""
    model, policy = _parameters(networks.online)
    if cfg.joint:
        return {"model": torch.optim.Adam([*model, *policy], lr=cfg.lr, fused=True)}
    return {
        "model": torch.optim.Adam(model, lr=cfg.lr, fused=True),
        "pi": torch.optim.Adam(policy, lr=cfg.lr, fused=True),
    }


def _parameters(model: LatentModel) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """Of everything but the policy, and the policy's."""
    policy = list(model.policy.parameters())
    ids = {id(p) for p in policy}
    return [p for p in model.parameters() if id(p) not in ids], policy


class Targets(NamedTuple):
    """What an update learns towards, without gradient.

    Attributes:
        first: the first observations, images shifted, (B, ...).
        next_z: latents of the steps 1 to H by the target encoder, (H, B, Z).
        value: TD targets, (H, B, 1).
    """

    first: Tensor
    next_z: Tensor
    value: Tensor


@torch.no_grad()
def targets_of(networks: TDMPCNetworks, batch: Batch, noise: UpdateNoise, discount: float) -> Targets:
    """The TD target takes the online encoder and policy, and the target's values."""
    online, target = networks.online, networks.target
    assert target is not None
    obs = batch.obs if noise.shift is None else shift_images(batch.obs, noise.shift)
    after = obs[1:]
    z = online.encode(after)
    action = online.pi(z, networks.cfg.policy_std, noise.target_eps)
    value = batch.reward + discount * (1 - batch.terminated) * target.values(z, action).amin(0)
    return Targets(obs[0], target.encode(after), value)


class ModelLoss(NamedTuple):
    """Of one batch; only `total` has gradients.

    Attributes:
        total: mean over the sequences, as their weights count them, ().
        consistency, reward, value: means over the sequences, ().
        zs: predicted latents z_0..z_H, (H + 1, B, Z).
        priority: of each sequence, (B,).
    """

    total: Tensor
    consistency: Tensor
    reward: Tensor
    value: Tensor
    zs: Tensor
    priority: Tensor


def model_loss(model: LatentModel, batch: Batch, targets: Targets, cfg: UpdateConfig) -> ModelLoss:
    """Joint loss of encoder, dynamics, reward and values along a latent rollout."""
    zs = [model.encode(targets.first)]
    for action in batch.action:
        zs.append(model.next(zs[-1], action))
    rollout = torch.stack(zs)
    horizon = len(batch.action)
    rho = (cfg.rho ** torch.arange(horizon, device=rollout.device)).unsqueeze(-1)  # (H, 1)

    def over_time(errors: Tensor) -> Tensor:  # (H, B) -> (B,)
        return (rho * errors).sum(0).clamp(max=_LARGEST)

    consistency = over_time((rollout[1:].float() - targets.next_z.float()).square().mean(-1))
    predicted = model.predict_reward(rollout[:-1], batch.action)
    reward = over_time((predicted - batch.reward).square().squeeze(-1))
    error = (model.values(rollout[:-1], batch.action) - targets.value).squeeze(-1)  # (2, H, B)
    value = over_time(error.square().sum(0))
    total = cfg.consistency_coef * consistency + cfg.reward_coef * reward + cfg.value_coef * value
    if batch.weight is not None:
        total = total * batch.weight
    with torch.no_grad():
        priority = over_time(error.abs().sum(0))
        means = (consistency.mean(), reward.mean(), value.mean())
    return ModelLoss(total.mean(), *means, rollout.detach(), priority)


def policy_loss(model: LatentModel, zs: Tensor, eps: Tensor, std: float, rho: float) -> Tensor:
    """What the policy's actions along the rollout (H + 1, B, Z) lack, by the smaller value; ()."""
    q = model.values(zs, model.pi(zs, std, eps), detach=True).amin(0)
    shares = rho ** torch.arange(len(zs), device=q.device)
    return -(shares * q.mean((1, 2))).sum()


class Updater:
    """Owns what an update changes beside the networks: optimizers, and the count of updates.

    Args:
        networks: with a target model.
        cfg: losses and rates.
        discount: per step.
        optimizers: from `make_optimizers`.
        replicas: with whom to take each step, where this is one of several.

    Attributes:
        td_error: of each sequence of the last batch, as the published priority weighs it, (B,).
    """

    def __init__(
        self,
        networks: TDMPCNetworks,
        cfg: UpdateConfig,
        discount: float,
        optimizers: Mapping[str, torch.optim.Optimizer] | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        if networks.target is None:
            raise ValueError("an update needs networks with a target model")
        self.networks, self.cfg, self.discount, self._replicas = networks, cfg, discount, replicas
        self.td_error: Tensor | None = None
        # Whether a target moves is decided on the host, and kept with the run.
        self.updates = torch.zeros((), dtype=torch.int64)
        self._compiles = compiles(cfg.compile, networks.device)
        self._targets = Compiled(targets_of) if self._compiles else targets_of
        self._model_loss = Compiled(model_loss) if self._compiles else model_loss
        self._policy_loss = Compiled(policy_loss) if self._compiles else policy_loss
        optimizers = optimizers or make_optimizers(networks, cfg)
        model, policy = _parameters(networks.online)
        model += policy if cfg.joint else []
        self._model_descent = Descent(optimizers["model"], model, cfg.grad_clip_norm, replicas)
        if not cfg.joint:
            self._pi_descent = Descent(optimizers["pi"], policy, cfg.grad_clip_norm, replicas)
        self._online: list[Tensor] = list(networks.online.parameters())
        self._target: list[Tensor] = list(networks.target.parameters())

    def step(self, batch: Batch, noise: UpdateNoise) -> dict[str, Tensor]:
        """Take one gradient step; where loss or gradient is not finite, none, and `skipped` is 1.

        Returns:
            Losses and gradient norms as 0-d tensors on the networks' device.
        """
        cfg, model, device = self.cfg, self.networks.online, self.networks.device
        if self._compiles:
            begin_step(device)
        if self._replicas is not None:
            batch = self._replicas.share_weights(batch)
        products = partial(products_in, cfg.dtype, device)
        with products():
            targets = self._targets(self.networks, batch, noise, self.discount)
        with products():
            loss = self._model_loss(model, batch, targets, cfg)
        self.td_error = loss.priority.clone()
        # As published, gradients (and so what is clipped) are those of the mean over the steps.
        total, skipped = loss.total / len(batch.action), torch.zeros((), device=device)
        if not cfg.joint:
            grad_norm, skipped = self._model_descent.step(total, skipped)
        with products():
            pi = self._policy_loss(model, loss.zs, noise.pi_eps, self.networks.cfg.policy_std, cfg.rho)
        if cfg.joint:
            grad_norm, skipped = self._model_descent.step(total + pi, skipped)
            pi_grad_norm = grad_norm
        else:
            pi_grad_norm, skipped = self._pi_descent.step(pi, skipped)
        if int(self.updates) % cfg.target_every == 0:
            with torch.no_grad():
                torch._foreach_lerp_(self._target, self._online, cfg.tau)
        self.updates += 1
        metrics = {
            "loss/consistency": loss.consistency,
            "loss/reward": loss.reward,
            "loss/value": loss.value,
            "loss/total": loss.total,
            "loss/pi": pi,
            "grad_norm": grad_norm,
            "pi_grad_norm": pi_grad_norm,
            "td_target": targets.value.mean(),
            "td_error": self.td_error.mean(),
            "skipped": skipped,
        }
        return dict(zip(metrics, torch.stack([x.detach() for x in metrics.values()]), strict=True))

    @torch.no_grad()
    def validate(self, batch: Batch, noise: UpdateNoise) -> dict[str, Tensor]:
        """See `Updater` of the agents' contract."""
        with products_in(self.cfg.dtype, self.networks.device):
            targets = targets_of(self.networks, batch, noise, self.discount)
            loss = model_loss(self.networks.online, batch, targets, self.cfg)
        return {"td_error": loss.priority.mean(), "consistency": loss.consistency, "reward": loss.reward}

    def state(self) -> dict[str, Tensor]:
        """What has to be kept beside networks and optimizers; a restore copies into these tensors."""
        return {"updates": self.updates}
