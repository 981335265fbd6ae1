"""The task-oriented latent dynamics model, online and as a target."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc_ray.core.agents.agent import Networks
from tdmpc_ray.core.agents.tdmpc.config import ModelConfig
from tdmpc_ray.core.batch import Observation
from tdmpc_ray.core.nn.elu import EluMLP, bias_elu
from tdmpc_ray.core.nn.kernels import TANH, norm_act
from tdmpc_ray.core.nn.layers import ensemble_product
from tdmpc_ray.core.nn.pixels import shift_images
from tdmpc_ray.errors import UserError

_KERNELS = (7, 5, 3, 3)  # of the convolutions, each with stride 2
_NOISE_CLIP = 0.3  # of the policy's noise
_BOUND = 1 - 1e-6  # of its actions


class QPair(nn.Module):
    """Two value heads as one: Linear, LayerNorm, Tanh, Linear, ELU, Linear."""

    def __init__(self, in_dim: int, hidden: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(2, *shape))
            for shape in ((hidden, in_dim), (hidden, hidden), (1, hidden))
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(2, size)) for size in (hidden, hidden, 1))
        self.ln_weight = nn.Parameter(torch.ones(2, hidden))
        self.ln_bias = nn.Parameter(torch.zeros(2, hidden))

    def forward(self, x: Tensor, detach: bool = False) -> Tensor:
        """Values, (2, ..., 1), of inputs (..., in); `detach`: no gradient reaches the heads."""
        parameters = [*self.weights, *self.biases, self.ln_weight, self.ln_bias]
        w1, w2, w3, b1, b2, b3, scale, offset = (p.detach() if detach else p for p in parameters)
        y = norm_act(ensemble_product(x.reshape(-1, x.shape[-1]), w1), b1, scale, offset, TANH)
        y = bias_elu(ensemble_product(y, w2), b2)
        y = ensemble_product(y, w3) + b3.unsqueeze(1)
        return y.float().reshape(2, *x.shape[:-1], 1)


class LatentModel(nn.Module):
    """Encoder, latent dynamics, reward, policy and two values: TOLD.

    Args:
        obs_shape: (O,), or (C, S, S) for stacked frames of 0 to 255.
        action_dim: A.
        cfg: architecture.
    """

    def __init__(self, obs_shape: Sequence[int], action_dim: int, cfg: ModelConfig) -> None:
        super().__init__()
        za_dim = cfg.latent_dim + action_dim
        self.encoder = _encoder(obs_shape, cfg)
        hidden = (cfg.mlp_dim, cfg.mlp_dim)
        self.dynamics = EluMLP(za_dim, *hidden, cfg.latent_dim)
        self.reward = EluMLP(za_dim, *hidden, 1)
        self.policy = EluMLP(cfg.latent_dim, *hidden, action_dim)
        self.q = QPair(za_dim, cfg.mlp_dim)
        self._init_weights()

    @torch.no_grad()
    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                is_convolution = isinstance(module, nn.Conv2d)
                nn.init.orthogonal_(module.weight, nn.init.calculate_gain("relu") if is_convolution else 1.0)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        for weight in self.q.weights:
            for head in weight:
                nn.init.orthogonal_(head)
        # Reward and value start as exactly zero.
        nn.init.zeros_(self.reward[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.q.weights[-1])

    def encode(self, obs: Tensor) -> Tensor:
        """Observations (..., *obs_shape) to latents (..., Z)."""
        if isinstance(self.encoder[0], nn.Linear):
            return self.encoder(obs)
        images = obs.flatten(0, -4).float() / 255
        return self.encoder(images).unflatten(0, obs.shape[:-3])

    def next(self, z: Tensor, action: Tensor) -> Tensor:
        """Latents of the next step, (..., Z); one latent (..., 1, Z) may serve S actions (..., S, A)."""
        return _run(self.dynamics, z, action)

    def predict_reward(self, z: Tensor, action: Tensor) -> Tensor:
        """Rewards, (..., 1); latents may serve several actions, as in `next`."""
        return _run(self.reward, z, action).float()

    def policy_mean(self, z: Tensor) -> Tensor:
        """(..., A) in [-1, 1]."""
        return torch.tanh(self.policy(z).float())

    def pi(self, z: Tensor, std: float, eps: Tensor) -> Tensor:
        """The policy's action with clipped noise, (..., A); its gradient is that of the mean.

        Args:
            z: (..., Z).
            std: of the noise.
            eps: standard-normal, broadcastable to (..., A).
        """
        action = self.policy_mean(z) + (std * eps).clamp(-_NOISE_CLIP, _NOISE_CLIP)
        return action + (action.clamp(-_BOUND, _BOUND) - action).detach()

    def values(self, z: Tensor, action: Tensor, *, detach: bool = False) -> Tensor:
        """Both heads', (2, ..., 1); `detach`: no gradient reaches their parameters."""
        return self.q(torch.cat([z, action], -1), detach)


class TDMPCNetworks(Networks):
    """What is learned, and the target that follows it; arguments as of `LatentModel`.

    Args:
        target: hold the target model, which only updates need.
    """

    learning_only = ("target.",)
    planning_only = ("online.q.", "online.dynamics.", "online.reward.")
    num_q = 2

    def __init__(
        self, obs_shape: Sequence[int], action_dim: int, cfg: ModelConfig, *, target: bool = True
    ) -> None:
        super().__init__()
        self.obs_shape, self.action_dim, self.cfg = tuple(obs_shape), action_dim, cfg
        self.online = LatentModel(obs_shape, action_dim, cfg)
        self.target = copy.deepcopy(self.online).requires_grad_(False) if target else None
        self.register_buffer("action_masks", torch.ones(0, action_dim), persistent=False)

    @torch.no_grad()
    def renew_targets(self) -> None:
        if self.target is not None:
            torch._foreach_copy_(list(self.target.parameters()), list(self.online.parameters()))

    def encode(self, obs: Observation, shift: Tensor | None = None) -> Tensor:
        """Observations to latents, (..., Z).

        Args:
            obs: (..., *obs_shape).
            shift: pixels to move each image by, (..., 2).
        """
        assert isinstance(obs, Tensor)  # of one part, see `TDMPCAgent.make_networks`
        return self.online.encode(obs if shift is None else shift_images(obs, shift))


def _encoder(obs_shape: Sequence[int], cfg: ModelConfig) -> nn.Sequential:
    if len(obs_shape) == 1:
        return EluMLP(obs_shape[0], cfg.enc_dim, cfg.latent_dim)
    channels, size, _ = obs_shape
    layers: list[nn.Module] = []
    for kernel in _KERNELS:
        layers += [nn.Conv2d(channels, cfg.num_channels, kernel, stride=2), nn.ReLU()]
        channels, size = cfg.num_channels, (size - kernel) // 2 + 1
    if size < 1:
        raise UserError(f"images of {obs_shape[1]} pixels are too small for TD-MPC's encoder")
    features = cfg.num_channels * size**2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, cfg.latent_dim))


def _run(network: EluMLP, z: Tensor, action: Tensor) -> Tensor:
    """A network on latents and actions; what a shared latent adds to the first product is computed once."""
    if z.shape[:-1] == action.shape[:-1]:
        return network(torch.cat([z, action], -1))
    from_z, from_action = network.linear[0].weight.split([z.shape[-1], action.shape[-1]], 1)
    return network.from_product(F.linear(z, from_z) + F.linear(action, from_action))
