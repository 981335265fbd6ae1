"""The world model: encoder, latent dynamics, reward, policy prior, Q ensemble, termination."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from tdmpc_ray.core.config import ModelConfig
from tdmpc_ray.core.kernels import two_hot_value
from tdmpc_ray.core.layers import EnsembleLinear, EnsembleMLP, mlp
from tdmpc_ray.core.math import PolicySample, squashed_gaussian


class WorldModel(nn.Module):
    """An implicit, control-centric world model (TD-MPC2, section 3.1).

    Args:
        obs_dim: size of the observation O.
        action_dim: size of the action A.
        cfg: architecture.
        target: hold the Polyak-averaged target heads; rollout workers need none.
    """

    bins: Tensor
    target_q: EnsembleMLP | None

    def __init__(self, obs_dim: int, action_dim: int, cfg: ModelConfig, *, target: bool = True) -> None:
        super().__init__()
        self.obs_dim, self.action_dim, self.cfg = obs_dim, action_dim, cfg
        z_dim, hidden, simnorm = cfg.latent_dim, [cfg.mlp_dim] * 2, cfg.simnorm_dim
        za_dim = z_dim + action_dim
        self.encoder = mlp(obs_dim, [cfg.enc_dim] * max(cfg.num_enc_layers - 1, 1), z_dim, simnorm)
        self.dynamics = mlp(za_dim, hidden, z_dim, simnorm)
        self.reward_head = mlp(za_dim, hidden, cfg.num_bins)
        self.policy = mlp(z_dim, hidden, 2 * action_dim)
        self.termination_head = mlp(z_dim, hidden, 1) if cfg.episodic else None
        self.q_ensemble = EnsembleMLP(cfg.num_q, za_dim, hidden, cfg.num_bins, cfg.dropout)
        self.register_buffer("bins", torch.linspace(cfg.vmin, cfg.vmax, cfg.num_bins), persistent=False)
        self._init_weights()
        self.target_q = None
        if target:
            self.target_q = copy.deepcopy(self.q_ensemble).requires_grad_(False).eval()

    @torch.no_grad()
    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Linear, EnsembleLinear)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        # Reward and value start as exactly zero, so that the first targets are the rewards alone.
        nn.init.zeros_(self.reward_head[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.q_ensemble.layers[-1].weight)  # type: ignore[arg-type]

    def train(self, mode: bool = True) -> WorldModel:
        """Switch dropout of the online heads; the target heads never drop anything."""
        if self.training == mode:  # RLlib toggles at every step, and walking all modules costs 0.2 ms
            return self
        super().train(mode)
        if self.target_q is not None:
            self.target_q.eval()
        return self

    def encode(self, obs: Tensor) -> Tensor:
        """Observations (..., O) to latents (..., Z)."""
        return self.encoder(obs)

    def next(self, z: Tensor, action: Tensor) -> Tensor:
        """Latents of the next step, (..., Z)."""
        return self.dynamics(torch.cat([z, action], -1))

    def reward_logits(self, z: Tensor, action: Tensor) -> Tensor:
        """Logits over the reward bins, (..., K)."""
        return self.reward_head(torch.cat([z, action], -1))

    def reward(self, z: Tensor, action: Tensor) -> Tensor:
        """Expected rewards, (..., 1)."""
        return two_hot_value(self.reward_logits(z, action), self.bins)

    def termination_logit(self, next_z: Tensor) -> Tensor:
        """Logit that the step which led to `next_z` ended the task, (..., 1)."""
        if self.termination_head is None:
            raise RuntimeError("this model has no termination head: set model.episodic=true")
        return self.termination_head(next_z)

    def pi(self, z: Tensor, eps: Tensor) -> PolicySample:
        """Sample the policy prior with standard-normal noise `eps` (..., A)."""
        cfg = self.cfg
        mean, log_std = self.policy(z).chunk(2, -1)
        log_std = cfg.log_std_min + 0.5 * (cfg.log_std_max - cfg.log_std_min) * (torch.tanh(log_std) + 1)
        return squashed_gaussian(mean, log_std, eps)

    def q_logits(
        self,
        z: Tensor,
        action: Tensor,
        heads: Tensor | None = None,
        *,
        target: bool = False,
        detach: bool = False,
    ) -> Tensor:
        """Logits over the value bins.

        Args:
            z: (..., Z).
            action: (..., A).
            heads: indices of the heads to evaluate, (J,); None means all.
            target: use the target heads.
            detach: let no gradient reach the parameters of the heads.

        Returns:
            (J, ..., K).
        """
        ensemble = self.target_q if target else self.q_ensemble
        if ensemble is None:
            raise RuntimeError("this world model was built without target heads")
        return ensemble(torch.cat([z, action], -1), heads, detach)

    def q(
        self, z: Tensor, action: Tensor, heads: Tensor, *, target: bool = False, detach: bool = False
    ) -> Tensor:
        """Values of the chosen heads, (J, ..., 1)."""
        return two_hot_value(self.q_logits(z, action, heads, target=target, detach=detach), self.bins)

    def world_parameters(self) -> list[nn.Parameter]:
        """Parameters of the world-model step: all but policy prior and target heads."""
        parts = [self.encoder, self.dynamics, self.reward_head, self.termination_head, self.q_ensemble]
        return [p for part in parts if part is not None for p in part.parameters()]

    def num_params(self) -> int:
        """Trainable parameters, as the paper counts them (without target heads)."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
