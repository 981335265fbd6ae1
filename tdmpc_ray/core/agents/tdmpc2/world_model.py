"""The world model: encoder, latent dynamics, reward, policy prior, Q ensemble, termination."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc_ray.core.agents.agent import Networks
from tdmpc_ray.core.agents.tdmpc2.config import ModelConfig
from tdmpc_ray.core.batch import Observation
from tdmpc_ray.core.nn.kernels import two_hot_value
from tdmpc_ray.core.nn.layers import EnsembleLinear, EnsembleMLP, NormedLinear, mlp
from tdmpc_ray.core.nn.math import PolicySample, squashed_gaussian, symexp, symlog, two_hot_cross_entropy
from tdmpc_ray.core.nn.pixels import PixelEncoder, shift_images


class TaskContext(NamedTuple):
    """What a multi-task model is told about the task; both broadcast against latents.

    Attributes:
        embedding: (..., T).
        action_mask: 1.0 for the dimensions that the task's action has, (..., A).
    """

    embedding: Tensor
    action_mask: Tensor


class WorldModel(Networks):
    """An implicit, control-centric world model (TD-MPC2, section 3.1).

    The methods of a multi-task model need `task`; those of a single-task model take None.

    Args:
        obs_shape: (O,), zero-padded to the largest task's; or (C, 64, 64) for stacked frames of 0 to 255.
        action_dim: size of the action A; the largest task's.
        cfg: architecture.
        action_dims: sizes of the tasks' own actions, for a multi-task model.
        target: hold the Polyak-averaged target heads; rollout workers need none.
        vector_dim: V, of the vector beside frames; 0: there is none.
    """

    learning_only = ("target_q.",)
    planning_only = ("q_ensemble.", "dynamics.", "reward_head.", "termination_head.")
    optional = ("termination_head.",)
    values_actions: ClassVar[bool] = True  # else values are those of latents alone
    bins: Tensor
    target_q: EnsembleMLP | None

    def __init__(
        self,
        obs_shape: Sequence[int],
        action_dim: int,
        cfg: ModelConfig,
        *,
        action_dims: Sequence[int] | None = None,
        target: bool = True,
        vector_dim: int = 0,
    ) -> None:
        super().__init__()
        self.obs_shape, self.action_dim, self.cfg = tuple(obs_shape), action_dim, cfg
        self.vector_dim, self.num_q = vector_dim, cfg.num_q
        self.num_tasks = 0 if action_dims is None else len(action_dims)
        task_dim = cfg.task_dim if self.num_tasks else 0
        hidden, simnorm = [cfg.mlp_dim] * 2, cfg.simnorm_dim
        z_dim = cfg.latent_dim + task_dim
        za_dim = z_dim + action_dim
        self.task_embedding = nn.Parameter(torch.empty(self.num_tasks, task_dim)) if self.num_tasks else None
        masks = torch.arange(action_dim) < torch.tensor(action_dims or []).unsqueeze(-1)
        self.register_buffer("action_masks", masks.float(), persistent=False)
        self.encoder: nn.Module
        enc_hidden = [cfg.enc_dim] * max(cfg.num_enc_layers - 1, 1)
        if len(self.obs_shape) == 3:
            self.encoder = PixelEncoder(self.obs_shape[0], cfg.num_channels, cfg.latent_dim, simnorm)
        else:
            self.encoder = mlp(self.obs_shape[0] + task_dim, enc_hidden, cfg.latent_dim, simnorm)
        self.vector_encoder = mlp(vector_dim, enc_hidden, cfg.latent_dim, simnorm) if vector_dim else None
        self.dynamics = mlp(za_dim, hidden, cfg.latent_dim, simnorm)
        self.reward_head = mlp(za_dim, hidden, cfg.num_bins)
        self.policy = mlp(z_dim, hidden, 2 * action_dim)
        self.termination_head = mlp(z_dim, hidden, 1) if cfg.episodic else None
        valued = za_dim if self.values_actions else z_dim
        self.q_ensemble = EnsembleMLP(cfg.num_q, valued, hidden, cfg.num_bins, cfg.dropout)
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
        if self.task_embedding is not None:
            nn.init.uniform_(self.task_embedding, -0.02, 0.02)
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

    def task(self, task_id: Tensor | None, *, detach: bool = False) -> TaskContext | None:
        """What the model is told about tasks: ids (...,), or None for a single-task model."""
        if self.task_embedding is None:
            return None
        if task_id is None:
            raise ValueError("a multi-task model needs the ids of the tasks")
        table = self.task_embedding.detach() if detach else self.task_embedding
        return TaskContext(F.embedding(task_id, table * self._embedding_scale()), self.action_masks[task_id])

    def task_vectors(self) -> Tensor | None:
        return None if self.task_embedding is None else self.task_embedding.detach() * self._embedding_scale()

    def _embedding_scale(self) -> Tensor:
        """Brings the tasks' embeddings to norms of at most 1, (tasks, 1)."""
        assert self.task_embedding is not None
        return 1 / self.task_embedding.detach().norm(dim=-1, keepdim=True).clamp(min=1)

    @torch.no_grad()
    def bound_task_embedding(self) -> None:
        """Project the tasks' embeddings, so that their gradient is that of what `task` gives out."""
        if self.task_embedding is not None:
            self.task_embedding.mul_(self._embedding_scale())

    def encode(
        self, obs: Observation, task: TaskContext | None = None, shift: Tensor | None = None
    ) -> Tensor:
        """Observations to latents (..., Z).

        Of frames and a vector, each has its encoder, and the latent is the mean of what they give: it has
        SimNorm's form, as what the dynamics predict has.

        Args:
            obs: (..., O), (..., C, 64, 64), or both.
            shift: pixels to move each image by, (..., 2), see `shift_images`.
        """
        seen, vector = (obs, None) if isinstance(obs, Tensor) else obs
        if shift is not None:
            seen = shift_images(seen, shift)
        z = self.encoder(_join(seen, task))
        if self.vector_encoder is None:
            return z
        return (z + self.vector_encoder(vector)) / 2

    def next(self, z: Tensor, action: Tensor, task: TaskContext | None = None) -> Tensor:
        """Latents of the next step, (..., Z); one latent (..., 1, Z) may serve S actions (..., S, A)."""
        return _run(self.dynamics, z, task, action)

    def reward_logits(self, z: Tensor, action: Tensor, task: TaskContext | None = None) -> Tensor:
        """What `scalar` makes rewards of, (..., K); latents may serve several actions, as in `next`."""
        return _run(self.reward_head, z, task, action)

    def reward(self, z: Tensor, action: Tensor, task: TaskContext | None = None) -> Tensor:
        """Expected rewards, (..., 1)."""
        return self.scalar(self.reward_logits(z, action, task))

    def scalar(self, logits: Tensor) -> Tensor:
        """Rewards or values that logits over the bins (..., K) stand for, (..., 1) float32."""
        if self.cfg.num_bins == 1:
            return symexp(logits.float().clamp(self.cfg.vmin, self.cfg.vmax))
        return two_hot_value(logits, self.bins)

    def is_clipped(self, x: Tensor) -> Tensor:
        """Whether rewards or values lie outside of the bins, so that others stand for them."""
        compressed = symlog(x)
        return (compressed < self.cfg.vmin) | (compressed > self.cfg.vmax)

    def scalar_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy with the two-hot encoded target, or with one bin the squared error in symlog space.

        Args:
            logits: (..., K).
            target: scalars, broadcastable to (..., 1).

        Returns:
            Losses, (..., 1).
        """
        if self.cfg.num_bins == 1:
            return (logits.float() - symlog(target)).square()
        return two_hot_cross_entropy(logits, target, self.cfg.vmin, self.cfg.vmax)

    def termination_logit(self, next_z: Tensor, task: TaskContext | None = None) -> Tensor:
        """Logit that the step which led to `next_z` ended the task, (..., 1)."""
        if self.termination_head is None:
            raise RuntimeError("this model has no termination head: set model.episodic=true")
        return self.termination_head(_join(next_z, task)).float()

    def pi(self, z: Tensor, eps: Tensor, task: TaskContext | None = None) -> PolicySample:
        """Sample the policy prior with standard-normal noise `eps` (..., A)."""
        return squashed_gaussian(*self.pi_gaussian(z, task), eps, None if task is None else task.action_mask)

    def pi_gaussian(self, z: Tensor, task: TaskContext | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the policy prior before squashing, (..., A) each."""
        cfg = self.cfg
        mean, log_std = self.policy(_join(z, task)).float().chunk(2, -1)
        return mean, cfg.log_std_min + 0.5 * (cfg.log_std_max - cfg.log_std_min) * (torch.tanh(log_std) + 1)

    def q_logits(
        self,
        z: Tensor,
        action: Tensor,
        heads: Tensor | None = None,
        task: TaskContext | None = None,
        *,
        target: bool = False,
        detach: bool = False,
    ) -> Tensor:
        """What `scalar` makes values of.

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
        known = _join(z, task)
        constant = 0 if known.requires_grad else known.shape[-1]
        if self.values_actions:
            known = _join(known, None, action)
        return ensemble(known, heads, detach, constant)

    def q(
        self,
        z: Tensor,
        action: Tensor,
        heads: Tensor,
        task: TaskContext | None = None,
        *,
        target: bool = False,
        detach: bool = False,
    ) -> Tensor:
        """Values of the chosen heads, (J, ..., 1)."""
        logits = self.q_logits(z, action, heads, task, target=target, detach=detach)
        return self.scalar(logits)

    def world_parameters(self) -> list[nn.Parameter]:
        """Parameters of the world-model step: all but policy prior and target heads."""
        parts = [self.dynamics, self.reward_head, self.termination_head, self.q_ensemble]
        embedding = [] if self.task_embedding is None else [self.task_embedding]
        rest = (p for part in parts if part is not None for p in part.parameters())
        return [*self.encoder_parameters(), *rest, *embedding]

    def encoder_parameters(self) -> list[nn.Parameter]:
        """Parameters of the encoder, or of both."""
        beside = [] if self.vector_encoder is None else self.vector_encoder.parameters()
        return [*self.encoder.parameters(), *beside]


def _run(network: nn.Sequential, z: Tensor, task: TaskContext | None, action: Tensor) -> Tensor:
    """A network on latents and actions; what a shared latent adds to the first product is computed once."""
    if z.shape[:-1] == action.shape[:-1]:
        return network(_join(z, task, action))
    first = network[0]
    assert isinstance(first, NormedLinear)
    from_z, from_action = first.weight.split([first.in_features - action.shape[-1], action.shape[-1]], 1)
    hidden = F.linear(_join(z, task), from_z) + F.linear(action, from_action)
    x = first.norm_act(hidden)
    for layer in itertools.islice(network, 1, None):
        x = layer(x)
    return x


def _join(x: Tensor, task: TaskContext | None, action: Tensor | None = None) -> Tensor:
    """Input of a network: latents or observations, the task's embedding, actions."""
    parts = [x]
    if task is not None:
        parts.append(task.embedding.expand(*x.shape[:-1], -1))
    if action is not None:
        parts.append(action)
    return torch.cat(parts, -1) if len(parts) > 1 else x
