"""Planning in latent space with MPPI, for many environments at once (TD-MPC2, section 3.2).

All randomness is drawn beforehand into a `PlanNoise`, so that a plan is a pure function of its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tdmpc_ray.core.config import PlannerConfig
from tdmpc_ray.core.fused import fused_model
from tdmpc_ray.core.world_model import TaskContext, WorldModel


@dataclass(frozen=True)
class PlanNoise:
    """Everything random in one plan of N environments.

    Attributes:
        pi: standard-normal, of the policy trajectories, (H, N, P, A).
        candidates: standard-normal, of the sampled candidates, (I, H, N, S - P, A).
        value_pi: standard-normal, of the policy action that ends each candidate, (I, N, S, A).
        heads: the two Q heads that value the candidates of each iteration, (I, 2).
        gumbel: picks the elite to execute, (N, E).
        explore: standard-normal, added to the executed action, (N, A).
    """

    pi: Tensor
    candidates: Tensor
    value_pi: Tensor
    heads: Tensor
    gumbel: Tensor
    explore: Tensor

    @classmethod
    def sample(
        cls, model: WorldModel, cfg: PlannerConfig, num_envs: int, generator: torch.Generator
    ) -> PlanNoise:
        """Draw the noise of one plan on the generator's device."""
        action_dim, device = model.action_dim, generator.device
        iterations = cfg.num_iterations(action_dim)
        num_sampled = cfg.num_samples - cfg.num_pi_trajs

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, action_dim, generator=generator, device=device)

        uniform = torch.rand(num_envs, cfg.num_elites, generator=generator, device=device)
        return cls(
            pi=normal(cfg.horizon, num_envs, cfg.num_pi_trajs),
            candidates=normal(iterations, cfg.horizon, num_envs, num_sampled),
            value_pi=normal(iterations, num_envs, cfg.num_samples),
            heads=draw_heads(model.cfg.num_q, iterations, generator),
            gumbel=-torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7))),
            explore=normal(num_envs),
        )


def draw_heads(num_q: int, rows: int, generator: torch.Generator) -> Tensor:
    """Draw two different heads per row, (rows, 2)."""
    keys = torch.rand(rows, num_q, generator=generator, device=generator.device)
    return keys.topk(2, dim=-1).indices


class ModelFunctions:
    """What a plan asks of the model, in PyTorch; `fused.FusedModel` has the same methods for the CPU."""

    def __init__(self, model: WorldModel, task: TaskContext | None = None) -> None:
        self._model = model
        self._task = None if task is None else TaskContext(*(x.unsqueeze(1) for x in task))  # (N, 1, ...)

    def rollout(self, z: Tensor, actions: Tensor, discount: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Roll action sequences through the model.

        Args:
            z: latents of the first step, (N, Z).
            actions: S candidates per latent, (H, N, S, A).
            discount: per step, (N, 1).

        Returns:
            Discounted sum of predicted rewards (N, S), the last latents (N, S, Z), and the weight of what
            follows (N, S): discount**H, or 0 where the model predicts that the task has ended before.
        """
        model, task = self._model, self._task
        z = z.unsqueeze(1).expand(-1, actions.shape[2], -1)
        total = torch.zeros(z.shape[:-1], device=z.device, dtype=z.dtype)
        weight = torch.ones_like(total)
        for action in actions:
            total = total + weight * model.reward(z, action, task).squeeze(-1)
            z = model.next(z, action, task)
            weight = weight * discount
            if model.termination_head is not None:
                weight = weight * (model.termination_logit(z, task).squeeze(-1) <= 0)
        return total, z, weight

    def terminal_value(self, z: Tensor, eps: Tensor, heads: Tensor) -> Tensor:
        """Mean of two heads at a policy action: latents (N, S, Z), noise (N, S, A) to values (N, S)."""
        action = self._model.pi(z, eps, self._task).action
        return self._model.q(z, action, heads, self._task).mean(0).squeeze(-1)

    def policy_rollout(self, z: Tensor, eps: Tensor) -> Tensor:
        """Actions of the policy prior along its own trajectories: (N, Z), (H, N, P, A) -> (H, N, P, A)."""
        model, task = self._model, self._task
        z = z.unsqueeze(1).expand(-1, eps.shape[2], -1)
        actions = []
        for t, eps_t in enumerate(eps):
            actions.append(model.pi(z, eps_t, task).action)
            if t + 1 < len(eps):
                z = model.next(z, actions[-1], task)
        return torch.stack(actions)


@torch.no_grad()
def plan(
    model: WorldModel,
    z: Tensor,
    prev_mean: Tensor,
    cfg: PlannerConfig,
    noise: PlanNoise,
    *,
    discount: float | Tensor,
    explore: bool,
    task: TaskContext | None = None,
) -> tuple[Tensor, Tensor]:
    """Plan one action per environment with MPPI.

    Args:
        z: latents, (N, Z).
        prev_mean: mean of the previous step's plan, (N, H, A) in [-1, 1]; zeros at an episode's start.
        noise: this plan's randomness.
        discount: per step; of each environment's task, (N,), with several.
        explore: add the plan's own Gaussian noise to the chosen action.
        task: of each environment, for a multi-task model.

    Returns:
        Actions (N, A) in [-1, 1], and this plan's mean (N, H, A), the next step's `prev_mean`.
    """
    functions = fused_model(model, task) or ModelFunctions(model, task)
    discount = torch.as_tensor(discount, dtype=z.dtype, device=z.device).expand(len(z)).unsqueeze(-1)
    mask = None if task is None else task.action_mask.unsqueeze(1)  # (N, 1, A)
    # Policy trajectories stay candidates in every iteration: their rewards are computed only once.
    pi_actions = functions.policy_rollout(z, noise.pi)
    pi_total, pi_z, pi_weight = functions.rollout(z, pi_actions, discount)

    mean = torch.cat([prev_mean[:, 1:], torch.zeros_like(prev_mean[:, :1])], 1)
    mean = mean.transpose(0, 1).unsqueeze(2)  # (H, N, 1, A)
    std = torch.full_like(mean, cfg.max_std)
    for eps, value_eps, heads in zip(noise.candidates, noise.value_pi, noise.heads, strict=True):
        sampled = (mean + std * eps).clamp(-1, 1)
        if mask is not None:
            sampled = sampled * mask
        total, last_z, weight = functions.rollout(z, sampled, discount)
        last_z = torch.cat([pi_z, last_z], 1)
        value = torch.cat([pi_total, total], 1)
        value = value + torch.cat([pi_weight, weight], 1) * functions.terminal_value(last_z, value_eps, heads)

        elite_value, elite = value.nan_to_num(0.0).topk(cfg.num_elites, dim=1)  # (N, E)
        index = elite[None, :, :, None].expand(cfg.horizon, -1, -1, model.action_dim)
        elite_actions = torch.cat([pi_actions, sampled], 2).gather(2, index)  # (H, N, E, A)
        score = torch.softmax(cfg.temperature * elite_value, 1)[None, :, :, None]
        mean = (score * elite_actions).sum(2, keepdim=True)
        variance = (score * (elite_actions - mean).square()).sum(2, keepdim=True)
        std = variance.sqrt().clamp(cfg.min_std, cfg.max_std)
        if mask is not None:
            std = std * mask

    chosen = (torch.log(score[0, :, :, 0]) + noise.gumbel).argmax(1)  # (N,)
    action = elite_actions[0, torch.arange(len(z), device=z.device), chosen]
    if explore:
        action = action + std[0, :, 0] * noise.explore
    return action.clamp(-1, 1), mean.squeeze(2).transpose(0, 1)
