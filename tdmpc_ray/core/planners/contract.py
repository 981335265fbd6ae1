"""What every planner takes and gives.

    plan(functions, z, prev_mean, cfg, noise, ...) -> Plan(action, mean, std, values)

All randomness is drawn beforehand into a `PlanNoise`, so that a plan is a pure function of its inputs. Of a
model, planners know the `ModelFunctions` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from tdmpc_ray.core.config import PlannerConfig
from tdmpc_ray.core.nn.pixels import draw_shift


class ModelFunctions(Protocol):
    """What a plan asks of a model, for N environments.

    Attributes:
        action_dim: A.
        action_mask: 1.0 for the numbers that each environment's task has, (N, 1, A); None: it has all.
    """

    action_dim: int
    action_mask: Tensor | None

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

    def terminal_value(self, z: Tensor, eps: Tensor, heads: Tensor) -> Tensor:
        """Value at a policy action, by two heads: latents (N, S, Z), noise (N, S, A) to values (N, S)."""

    def policy_rollout(self, z: Tensor, eps: Tensor) -> Tensor:
        """Actions of the policy prior along its own trajectories: (N, Z), (H, N, P, A) -> (H, N, P, A)."""

    def policy(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The policy prior before squashing: (N, Z) to mean and log standard deviation, (N, A) each."""


class Plan(NamedTuple):
    """What a planner decides for N environments.

    Attributes:
        action: in [-1, 1], (N, A).
        mean: of the planned actions, (N, H, A); the next step's `prev_mean`.
        std: of the planned actions, (N, H, A).
        values: that the model foresees for the E best candidates, best first, (N, E); E = 0 without any.
        chosen: the action before exploration noise, (N, A); None where planners do not tell it apart.
    """

    action: Tensor
    mean: Tensor
    std: Tensor
    values: Tensor
    chosen: Tensor | None = None


@dataclass(frozen=True)
class PlanNoise:
    """Everything random in one plan of N environments with I iterations over S candidates.

    Attributes:
        pi: standard-normal, of the policy trajectories, (H, N, P, A).
        candidates: standard-normal, of the sampled candidates, (I, H, N, S - P, A).
        value_pi: standard-normal, of the policy action that ends each candidate, (I, N, S, A).
        heads: the two Q heads that value the candidates of each iteration, (I, 2).
        gumbel: picks the elite to execute, (N, E).
        explore: standard-normal, of the executed action, (N, A).
        shift: pixels to move each image by before it is encoded, (N, 2); None: images stay.
    """

    pi: Tensor
    candidates: Tensor
    value_pi: Tensor
    heads: Tensor
    gumbel: Tensor
    explore: Tensor
    shift: Tensor | None = None

    @classmethod
    def sample(
        cls, networks: Any, cfg: PlannerConfig, num_envs: int, generator: torch.Generator
    ) -> PlanNoise:
        """Draw the noise of one plan on the generator's device, for `agents.agent.Networks`."""
        action_dim, device = networks.action_dim, generator.device
        iterations, num_pi, num = cfg.num_iterations(action_dim), cfg.num_pi_trajs, cfg.num_samples
        num_sampled = num - num_pi
        if cfg.method == "gradient":  # the policy's trajectories and the last plan, improved together
            iterations, num, num_sampled = cfg.gradient_steps + 1, num_pi + 1, 0

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, action_dim, generator=generator, device=device)

        if cfg.method == "policy":  # a policy is small beside the drawing of what it has no use for
            none = torch.zeros(0, cfg.horizon, num_envs, 0, action_dim, device=device)
            elites, heads = none.new_zeros(num_envs, cfg.num_elites), none.new_zeros(0, 2, dtype=torch.int64)
            return cls(
                pi=none.new_zeros(cfg.horizon, num_envs, 0, action_dim),
                candidates=none,
                value_pi=none[:, 0],
                heads=heads,
                gumbel=elites,
                explore=normal(num_envs),
                shift=_shift(networks, cfg, num_envs, generator),
            )
        uniform = torch.rand(num_envs, cfg.num_elites, generator=generator, device=device)
        return cls(
            pi=normal(cfg.horizon, num_envs, num_pi),
            candidates=normal(iterations, cfg.horizon, num_envs, num_sampled),
            value_pi=normal(iterations, num_envs, num),
            heads=draw_heads(networks.num_q, iterations, generator),
            gumbel=-torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7))),
            explore=normal(num_envs),
            shift=_shift(networks, cfg, num_envs, generator),
        )


def _shift(networks: Any, cfg: PlannerConfig, num_envs: int, generator: torch.Generator) -> Tensor | None:
    is_moved = cfg.shift_images and len(networks.obs_shape) == 3
    return draw_shift((num_envs,), generator) if is_moved else None


def draw_heads(num_q: int, rows: int, generator: torch.Generator) -> Tensor:
    """Draw two different heads per row, (rows, 2)."""
    keys = torch.rand(rows, num_q, generator=generator, device=generator.device)
    return keys.topk(2, dim=-1).indices
