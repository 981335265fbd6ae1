"""One gradient step in the paper's order: world model, policy prior, target heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tdmpc_ray.core.agents.tdmpc2.config import UpdateConfig
from tdmpc_ray.core.agents.tdmpc2.losses import (
    PolicyLoss,
    Targets,
    mean_of_real,
    policy_loss,
    policy_values,
    running_scale,
    scaled_policy_loss,
    td_target,
    teach,
    world_model_loss,
)
from tdmpc_ray.core.agents.tdmpc2.parts import freeze
from tdmpc_ray.core.agents.tdmpc2.world_model import TaskContext, WorldModel
from tdmpc_ray.core.batch import Batch, observations
from tdmpc_ray.core.nn.compiled import Compiled, begin_step, compiles
from tdmpc_ray.core.nn.descent import Descent
from tdmpc_ray.core.nn.pixels import draw_shift
from tdmpc_ray.core.nn.precision import products_in
from tdmpc_ray.core.parallel import Replicas
from tdmpc_ray.core.planners.contract import draw_heads


@dataclass(frozen=True)
class UpdateNoise:
    """Everything random in one update, but dropout.

    Attributes:
        target_eps: standard-normal, of the policy action in the TD target, (H, B, A).
        target_heads: target heads whose minimum counts, (2,).
        pi_eps: standard-normal, of the policy loss, (H + 1, B, A).
        pi_heads: online heads whose mean counts in the policy loss, (2,).
        shift: pixels to move each image by, (H + 1, B, 2); None for vectors.
    """

    target_eps: Tensor
    target_heads: Tensor
    pi_eps: Tensor
    pi_heads: Tensor
    shift: Tensor | None = None

    @classmethod
    def sample(
        cls,
        model: WorldModel,
        horizon: int,
        batch_size: int,
        generator: torch.Generator,
        heads_generator: torch.Generator | None = None,
    ) -> UpdateNoise:
        """Draw the noise of one update on the generator's device.

        Args:
            heads_generator: draws the heads, which several replicas have in common; None: `generator`.
        """
        shape, device = (2 * horizon + 1, batch_size, model.action_dim), generator.device
        eps = torch.randn(shape, generator=generator, device=device)
        heads = draw_heads(model.cfg.num_q, 2, heads_generator or generator)
        shift = None
        if len(model.obs_shape) == 3:
            shift = draw_shift((horizon + 1, batch_size), generator)
        return cls(eps[:horizon], heads[0], eps[horizon:], heads[1], shift)


def make_optimizers(model: WorldModel, cfg: UpdateConfig) -> tuple[torch.optim.Adam, torch.optim.Adam]:
    """Adam for the world model (a slower group for the encoder), and Adam for the policy prior."""
    encoder = model.encoder_parameters()
    ids = {id(p) for p in encoder}
    rest = [p for p in model.world_parameters() if id(p) not in ids]
    groups: list[dict[str, Any]] = [{"params": encoder, "lr": cfg.lr * cfg.enc_lr_scale}, {"params": rest}]
    return (
        torch.optim.Adam(groups, lr=cfg.lr, fused=True),
        torch.optim.Adam(model.policy.parameters(), lr=cfg.lr, eps=cfg.pi_eps, fused=True),
    )


@torch.no_grad()
def _targets(
    model: WorldModel, batch: Batch, noise: UpdateNoise, discount: Tensor, task: TaskContext | None
) -> Targets:
    after = slice(1, None)
    next_z = model.encode(observations(batch, after), task, None if noise.shift is None else noise.shift[1:])
    eps, heads = noise.target_eps, noise.target_heads
    target = td_target(model, next_z, batch.reward, batch.terminated, discount, eps, heads, task)
    clipped = (mean_of_real(model.is_clipped(x).float(), batch.mask) for x in (target, batch.reward))
    return Targets(next_z, target, mean_of_real(target, batch.mask), *clipped)


class Updater:
    """Owns what an update changes beside the model: two optimizers and the running scale.

    Args:
        model: a world model with target heads.
        cfg: losses and rates.
        discount: of the task, see `UpdateConfig.discount`; one per task for a multi-task model.
        optimizers: world model's and policy prior's; made from `cfg` where not given.
        replicas: with whom to take each step, where this is one of several; their models must be equal.

    Attributes:
        td_error: of each sequence of the last batch, absolute, (B,); None where the batch had no weights.
        teacher: of the same tasks and observations, on the model's device; None: there is none.
    """

    def __init__(
        self,
        model: WorldModel,
        cfg: UpdateConfig,
        discount: float | Sequence[float],
        optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer] | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        if model.target_q is None:
            raise ValueError("an update needs a world model with target heads")
        self.model, self.cfg, self._replicas = model, cfg, replicas
        freeze(model, cfg.train)
        self.discount = torch.as_tensor(discount, dtype=torch.float32, device=model.bins.device)
        if self.discount.shape != ((model.num_tasks,) if model.num_tasks else ()):
            raise ValueError(f"{model.num_tasks} tasks need as many discounts, not {discount}")
        self.world_optimizer, self.pi_optimizer = optimizers or make_optimizers(model, cfg)
        self.scale = torch.ones((), device=model.bins.device)
        self.td_error: Tensor | None = None
        self.teacher: WorldModel | None = None
        self._compiles = compiles(cfg.compile, model.bins.device)
        self._targets: Callable[..., Targets] = Compiled(_targets) if self._compiles else _targets
        self._world_model_loss = Compiled(world_model_loss) if self._compiles else world_model_loss
        self._policy_loss = Compiled(policy_loss) if self._compiles else policy_loss
        self._policy_values = Compiled(policy_values) if self._compiles else policy_values
        clip, policy = cfg.grad_clip_norm, list(model.policy.parameters())
        self._world_descent = Descent(self.world_optimizer, model.world_parameters(), clip, replicas)
        self._pi_descent = Descent(self.pi_optimizer, policy, clip, replicas)
        self._online: list[Tensor] = list(model.q_ensemble.parameters())
        self._target: list[Tensor] = list(model.target_q.parameters())

    def step(self, batch: Batch, noise: UpdateNoise) -> dict[str, Tensor]:
        """Take one gradient step; where loss or gradient is not finite, none, and `skipped` is 1.

        Returns:
            Losses and gradient norms as 0-d tensors on the model's device: reading them syncs, not this.
        """
        model, cfg, device = self.model, self.cfg, self.model.bins.device
        if self._compiles:
            begin_step(device)
        if self._replicas is not None:
            batch = self._replicas.share_weights(batch)
        model.train()
        model.bound_task_embedding()
        task = model.task(batch.task)
        discount = self.discount if task is None else self.discount[batch.task].unsqueeze(-1)
        products = partial(products_in, cfg.dtype, device)
        with products():
            targets = self._targets(model, batch, noise, discount, task)
        with products():
            shift = None if noise.shift is None else noise.shift[0]
            taught = None if self.teacher is None else teach(self.teacher, batch)
            learned = (targets.next_z, targets.target)
            world = self._world_model_loss(model, batch, *learned, cfg, task, shift, taught)
        self.td_error = None if world.td_error is None else world.td_error.clone()
        skipped = torch.zeros((), device=device)
        grad_norm, skipped = self._world_descent.step(world.total, skipped)

        task = model.task(batch.task, detach=True)
        with products():
            pi = self._policy(world.zs, batch, noise, task)
        pi_grad_norm = torch.zeros((), device=device)
        if self._policy_learns():
            pi_grad_norm, skipped = self._pi_descent.step(pi.total, skipped)

        with torch.no_grad():
            if self._policy_learns():
                self.scale.copy_(torch.where(skipped > 0, self.scale, pi.scale))
            torch._foreach_lerp_(self._target, self._online, cfg.tau)
        metrics = {
            "loss/consistency": world.consistency,
            "loss/reward": world.reward,
            "loss/value": world.value,
            "loss/termination": world.termination,
            "loss/total": world.total,
            "loss/pi": pi.total,
            "grad_norm": grad_norm,
            "pi_grad_norm": pi_grad_norm,
            "pi_entropy": pi.entropy,
            "pi_scaled_entropy": pi.scaled_entropy,
            "pi_scale": pi.scale,
            "td_target": targets.mean,
            "targets_clipped": targets.targets_clipped,
            "rewards_clipped": targets.rewards_clipped,
            "skipped": skipped,
        }
        if self.teacher is not None:
            metrics["loss/teacher"] = world.taught
        if cfg.bc_coef:
            metrics["loss/bc"] = pi.bc
        if self.td_error is not None:
            metrics["td_error"] = self.td_error.mean()
        # Copies: the next step overwrites what compiled functions gave out.
        return dict(zip(metrics, torch.stack([x.detach() for x in metrics.values()]), strict=True))

    @torch.no_grad()
    def validate(self, batch: Batch, noise: UpdateNoise) -> dict[str, Tensor]:
        """See `Updater` of the agents' contract; without dropout."""
        model, cfg = self.model, self.cfg
        model.eval()
        task = model.task(batch.task)
        discount = self.discount if task is None else self.discount[batch.task].unsqueeze(-1)
        batch = batch._replace(weight=torch.ones(batch.reward.shape[1], device=batch.reward.device))
        with products_in(cfg.dtype, model.bins.device):
            targets = _targets(model, batch, noise, discount, task)
            shift = None if noise.shift is None else noise.shift[0]
            loss = world_model_loss(model, batch, targets.next_z, targets.target, cfg, task, shift)
        assert loss.td_error is not None
        return {"td_error": loss.td_error.mean(), "consistency": loss.consistency, "reward": loss.reward}

    def _policy_learns(self) -> bool:
        return True

    def _policy(self, zs: Tensor, batch: Batch, noise: UpdateNoise, task: TaskContext | None) -> PolicyLoss:
        eps, heads, mask = noise.pi_eps, noise.pi_heads, batch.mask
        action = batch.action if self.cfg.bc_coef else None
        if self._replicas is None:
            return self._policy_loss(self.model, zs, self.scale, self.cfg, eps, heads, task, mask, action)
        # In two parts, as replicas meet between them: their percentiles are not those of all their values.
        values = self._policy_values(self.model, zs, eps, heads, task, action)
        q = self._replicas.gather(values.q[0].detach())
        return scaled_policy_loss(values, running_scale(self.scale, q, self.cfg.tau), self.cfg, mask)

    def state(self) -> dict[str, Tensor]:
        """What has to be kept beside model and optimizers; a restore copies into these tensors."""
        return {"scale": self.scale}
