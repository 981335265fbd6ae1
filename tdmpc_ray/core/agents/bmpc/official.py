"""Checkpoints of BMPC's published code: TD-MPC2's format, with the spread of reanalysis' proposals beside."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmpc_ray.core.agents.agent import Published
from tdmpc_ray.core.agents.bmpc.config import ModelConfig
from tdmpc_ray.core.agents.bmpc.networks import BMPCNetworks
from tdmpc_ray.core.agents.bmpc.reanalysis import LOG_STD_RANGE
from tdmpc_ray.core.agents.tdmpc2 import official as tdmpc2

_PROPOSALS = ("expl_log_std_min", "expl_log_std_dif")


def read_published(path: Path) -> Published:
    """Read a checkpoint of the published code.

    Raises:
        UserError: the file cannot be read.
    """
    found = tdmpc2.read_published(path)
    values = {field.name: getattr(found.model, field.name) for field in fields(found.model)}
    return found._replace(model=ModelConfig(**values))


def to_official(networks: BMPCNetworks, **options: Any) -> dict[str, Tensor]:
    """The content of such a checkpoint; options as TD-MPC2's.

    Raises:
        UserError: the published code has no such networks.
    """
    low, high = LOG_STD_RANGE
    proposals = (torch.tensor(value) for value in (low, high - low))
    return {**tdmpc2.to_official(networks, **options), **dict(zip(_PROPOSALS, proposals, strict=True))}
