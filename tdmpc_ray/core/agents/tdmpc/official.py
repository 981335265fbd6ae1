"""Checkpoints of the published TD-MPC implementation (nicklashansen/tdmpc, MIT), read and written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmpc_ray.core.agents.agent import Published
from tdmpc_ray.core.agents.published_file import read_tensors
from tdmpc_ray.core.agents.tdmpc.config import ModelConfig
from tdmpc_ray.core.agents.tdmpc.networks import LatentModel, TDMPCNetworks
from tdmpc_ray.errors import UserError

_PARTS = {"encoder": "_encoder", "dynamics": "_dynamics", "reward": "_reward", "policy": "_pi"}
# Of a value head, the published numbers of its layers, and our names.
_Q_LAYERS = {
    "0.weight": "weights.0",
    "0.bias": "biases.0",
    "1.weight": "ln_weight",
    "1.bias": "ln_bias",
    "3.weight": "weights.1",
    "3.bias": "biases.1",
    "5.weight": "weights.2",
    "5.bias": "biases.2",
}
_HEADS = ("_Q1", "_Q2")
_MODELS = {"online": "model", "target": "model_target"}


def from_official(model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published `state_dict` under the keys of `LatentModel`."""
    images = "_encoder.1.weight" in model  # images are divided first, by a layer without parameters
    found: dict[str, Tensor] = {}
    for ours, theirs in _PARTS.items():
        for name, value in model.items():
            if match := re.fullmatch(rf"{theirs}\.(\d+)\.(weight|bias)", name):
                layer = int(match[1]) - (1 if images and ours == "encoder" else 0)
                found[f"{ours}.{layer}.{match[2]}"] = value
    for theirs, ours in _Q_LAYERS.items():
        found[f"q.{ours}"] = torch.stack([model[f"{head}.{theirs}"] for head in _HEADS])
    return found


def to_official(networks: TDMPCNetworks) -> dict[str, dict[str, Tensor]]:
    """What the published code saves; `read_published` is its inverse.

    Args:
        networks: with a target model.
    """
    if networks.target is None:
        raise ValueError("the published format needs the target model")
    return {theirs: _state(getattr(networks, ours)) for ours, theirs in _MODELS.items()}


def _state(model: LatentModel) -> dict[str, Tensor]:
    ours = model.state_dict()
    first = 0 if isinstance(model.encoder[0], torch.nn.Linear) else 1
    state = {}
    for part, theirs in _PARTS.items():
        for key, value in ours.items():
            if match := re.fullmatch(rf"{part}\.(\d+)\.(weight|bias)", key):
                layer = int(match[1]) + (first if part == "encoder" else 0)
                state[f"{theirs}.{layer}.{match[2]}"] = value
    for number, head in enumerate(_HEADS):
        state |= {f"{head}.{theirs}": ours[f"q.{name}"][number] for theirs, name in _Q_LAYERS.items()}
    return state


def read_published(path: Path) -> Published:
    """Read a checkpoint of the published code; see `agents.agent.Published`.

    Raises:
        UserError: the file cannot be read, or is none.
    """
    file = read_tensors(path)
    parameters: dict[str, Tensor] = {}
    try:
        for ours, theirs in _MODELS.items():
            parameters |= {f"{ours}.{key}": value for key, value in from_official(file[theirs]).items()}
        known, cfg = _architecture(parameters)
    except (KeyError, AttributeError, TypeError):
        raise UserError(f"{path} holds no checkpoint of the published TD-MPC code") from None
    obs = "rgb" if _is_convolution(parameters) else "state"
    return Published(parameters, cfg, known, obs, None, 0)


def _is_convolution(parameters: Mapping[str, Tensor]) -> bool:
    return parameters["online.encoder.0.weight"].dim() == 4


def _architecture(parameters: Mapping[str, Tensor]) -> tuple[tuple[str, ...], ModelConfig]:
    width = "num_channels" if _is_convolution(parameters) else "enc_dim"
    sizes: dict[str, Any] = {
        width: len(parameters["online.encoder.0.weight"]),
        "mlp_dim": len(parameters["online.dynamics.0.weight"]),
        "latent_dim": len(parameters["online.dynamics.4.weight"]),
    }
    return tuple(sizes), ModelConfig(**sizes)
