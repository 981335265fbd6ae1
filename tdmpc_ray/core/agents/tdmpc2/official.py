"""Checkpoints of the published TD-MPC2 implementation (nicklashansen/tdmpc2, MIT), read and written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmpc_ray.core.agents.agent import Published
from tdmpc_ray.core.agents.published_file import read_tensors
from tdmpc_ray.core.agents.tdmpc2.config import ModelConfig
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.checks import shape_differences
from tdmpc_ray.errors import UserError

# Our prefix and the published one; layers are numbered alike, but for the convolutions.
_PARTS = (
    ("encoder", "_encoder.state"),
    ("dynamics", "_dynamics"),
    ("reward_head", "_reward"),
    ("policy", "_pi"),
    ("termination_head", "_termination"),
    ("q_ensemble.layers", "_Qs.params"),
    ("target_q.layers", "_target_Qs_params"),
)
_CONVOLUTIONS = ("encoder.convolutions", "_encoder.rgb")
_EMBEDDING = ("task_embedding", "_task_emb.weight")
# Older checkpoints number the parameters of the heads: layer after layer, four each.
_FLAT = re.compile(r"(_Qs|_target_Qs)\.params\.(\d+)")
_FLAT_NAMES = ("weight", "bias", "ln.weight", "ln.bias")
# What is not kept: what we hold elsewhere, and the copies of the heads.
_IGNORED = re.compile(
    r"(expl_)?log_std_(min|dif)|_(target_)?Qs\.module\..*|_action_masks|_detach_Qs.*|.*\.__(batch_size|device)"
)
# Tensors whose shapes tell the architecture, with their dimensions.
_READ_BY_SHAPE = {
    "dynamics.0.weight": 2,
    "dynamics.2.weight": 2,
    "q_ensemble.layers.2.weight": 3,
    "encoder.0.weight": 2,
    "encoder.convolutions.0.weight": 4,
    "task_embedding": 2,
}
# Fields of the architecture that every file tells.
_ALWAYS_KNOWN = ("mlp_dim", "latent_dim", "num_q", "num_bins", "log_std_min", "log_std_max", "episodic")
_NEEDED = {"dynamics.0.weight", "dynamics.2.weight", "q_ensemble.layers.2.weight"}


def from_official(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Translate the published `state_dict`, in either of its layouts, to the keys of `WorldModel`.

    Args:
        state: the mapping under the checkpoint's key `model`.
    """
    return {key: value for name, value in state.items() if (key := _our_key(name)) is not None}


def to_official(model: WorldModel, *, flat: bool = False) -> dict[str, Any]:
    """The published `state_dict` of a model; `from_official` is its inverse.

    Args:
        model: with target heads.
        flat: number the heads' parameters, as older published checkpoints do.

    Raises:
        UserError: the published code has no such network.
    """
    cfg = model.cfg
    if model.target_q is None:
        raise ValueError("the published format needs the target heads")
    if not cfg.simnorm_dim or cfg.num_bins == 1:
        raise UserError("the published code has no model without SimNorm or without two-hot values")
    if model.vector_dim:
        raise UserError("the published code has no model that observes images and a vector")
    low, span = (
        int(x) if x.is_integer() else x for x in (cfg.log_std_min, cfg.log_std_max - cfg.log_std_min)
    )
    state: dict[str, Any] = {"log_std_min": torch.tensor(low), "log_std_dif": torch.tensor(span)}
    if model.num_tasks:
        state["_action_masks"] = model.action_masks
    for ours, value in model.state_dict().items():
        state[_official_key(ours, flat=flat)] = value
    if not flat:
        heads = {k: v for k, v in state.items() if k.startswith("_Qs.params.")}
        state |= {k.replace("_Qs.params", "_detach_Qs_params"): v for k, v in heads.items()}
        for prefix in ("_Qs.params", "_detach_Qs_params", "_target_Qs_params"):
            state |= {f"{prefix}.__batch_size": torch.Size([cfg.num_q]), f"{prefix}.__device": None}
    return state


def read_official(path: Path) -> dict[str, Tensor]:
    """Parameters in a published checkpoint file, under the keys of `WorldModel`.

    Raises:
        UserError: the file cannot be read, or is none.
    """
    return read_published(path).parameters


def read_published(path: Path) -> Published:
    """All of a published checkpoint file that a model is made of.

    Raises:
        UserError: as `read_official`.
    """
    state = read_tensors(path)
    state = state.get("model", state)
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        state = {}
    parameters = from_official(state)
    if not {"dynamics.0.weight", "q_ensemble.layers.0.weight"} <= parameters.keys():
        raise UserError(f"{path} holds no checkpoint of the published TD-MPC2 code")
    for name in state:
        if _our_key(name) is None and not _IGNORED.fullmatch(name):
            raise UserError(f"{path} has a tensor that TD-MPC2 does not know: {name}")
    for key, ndim in _READ_BY_SHAPE.items():
        if key in _NEEDED and key not in parameters:
            raise UserError(f"{path}: {key} is missing")
        if key in parameters and getattr(parameters[key], "ndim", None) != ndim:
            raise UserError(f"{path}: {key} should be a tensor of {ndim} dimensions")
    for key, tensor in parameters.items():
        if getattr(tensor, "dtype", None) != torch.float32:
            kind = getattr(tensor, "dtype", type(tensor).__name__)
            raise UserError(f"{path}: {key} should hold float32, not {kind}")
        if not tensor.isfinite().all():
            raise UserError(f"{path}: {key} holds numbers that are not finite")
    low, span = (state.get(name) for name in ("log_std_min", "log_std_dif"))
    log_std_range = None
    if isinstance(low, Tensor) and isinstance(span, Tensor) and low.numel() == span.numel() == 1:
        log_std_range = low.item(), low.item() + span.item()
    action_dims, masks = None, state.get("_action_masks")
    if isinstance(masks, Tensor) and masks.dim() == 2:
        action_dims = masks.sum(1).int().tolist()
    is_state, num_tasks = "encoder.0.weight" in parameters, len(parameters.get("task_embedding", ()))
    known = (*_ALWAYS_KNOWN, *(("enc_dim", "num_enc_layers") if is_state else ("num_channels",)))
    return Published(
        parameters,
        infer_config(parameters, log_std_range),
        (*known, "task_dim") if num_tasks else known,
        "state" if is_state else "rgb",
        action_dims,
        num_tasks,
    )


def infer_config(
    state: Mapping[str, Tensor], log_std_range: tuple[float, float] | None = None
) -> ModelConfig:
    """The architecture that a published checkpoint belongs to.

    Args:
        state: its parameters, as `read_official` gives them.
        log_std_range: least and greatest logarithm of the policy's standard deviation; None: the defaults.
    """
    mlp_dim = state["dynamics.0.weight"].shape[0]
    encoder: dict[str, Any] = {}
    if "encoder.0.weight" in state:
        num_hidden = sum(bool(re.fullmatch(r"encoder\.\d+\.weight", key)) for key in state) - 1
        encoder = {"enc_dim": state["encoder.0.weight"].shape[0], "num_enc_layers": num_hidden + 1}
    elif "encoder.convolutions.0.weight" in state:
        encoder = {"num_channels": state["encoder.convolutions.0.weight"].shape[0]}
    low, high = log_std_range or (ModelConfig.log_std_min, ModelConfig.log_std_max)
    num_q, num_bins, _ = state["q_ensemble.layers.2.weight"].shape
    return ModelConfig(
        **encoder,
        mlp_dim=mlp_dim,
        latent_dim=state["dynamics.2.weight"].shape[0],
        num_q=num_q,
        num_bins=num_bins,
        task_dim=state["task_embedding"].shape[1] if "task_embedding" in state else 0,
        log_std_min=float(low),
        log_std_max=float(high),
        episodic="termination_head.0.weight" in state,
    )


def load_parameters(model: WorldModel, state: Mapping[str, Tensor]) -> None:
    """Put parameters into a model.

    Raises:
        UserError: they belong to a model of another shape; names the first tensors that differ.
    """
    if differences := shape_differences(model.state_dict(), state, "in the file"):
        raise UserError(f"the checkpoint belongs to a model of another shape: {differences}")
    model.load_state_dict(state)


def _our_key(name: str) -> str | None:
    """Our key of a published one; None for what a model does not keep."""
    if match := _FLAT.fullmatch(name):
        layer, parameter = divmod(int(match[2]), len(_FLAT_NAMES))
        prefix = "_Qs.params" if match[1] == "_Qs" else "_target_Qs_params"
        name = f"{prefix}.{layer}.{_FLAT_NAMES[parameter]}"
    if name == _EMBEDDING[1]:
        return _EMBEDDING[0]
    for ours, theirs in (*_PARTS, _CONVOLUTIONS):
        match = re.fullmatch(rf"{re.escape(theirs)}\.(\d+)\.(weight|bias|ln\.weight|ln\.bias)", name)
        if match:
            layer, parameter_name = int(match[1]), match[2]
            if ours == _CONVOLUTIONS[0]:  # shift and scaling come first, and a ReLU after each convolution
                layer = (layer - 2) // 2
            if "q" in ours.split(".")[0].split("_"):  # stacked heads keep their LayerNorm in the layer itself
                parameter_name = parameter_name.replace(".", "_")
            return f"{ours}.{layer}.{parameter_name}"
    return None


def _official_key(key: str, *, flat: bool) -> str:
    if key == _EMBEDDING[0]:
        return _EMBEDDING[1]
    for ours, theirs in (*_PARTS, _CONVOLUTIONS):
        match = re.fullmatch(rf"{re.escape(ours)}\.(\d+)\.(weight|bias|ln[._]weight|ln[._]bias)", key)
        if match:
            layer, name = int(match[1]), match[2].replace("_", ".")
            if ours == _CONVOLUTIONS[0]:
                layer = 2 * layer + 2
            if flat and ours in ("q_ensemble.layers", "target_q.layers"):
                prefix = "_Qs" if ours == "q_ensemble.layers" else "_target_Qs"
                return f"{prefix}.params.{layer * len(_FLAT_NAMES) + _FLAT_NAMES.index(name)}"
            return f"{theirs}.{layer}.{name}"
    raise UserError(f"the published code has no place for {key}: it knows pixels at model size 5 only")
