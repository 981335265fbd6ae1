"""Read checkpoints of the published TD-MPC2 implementation (nicklashansen/tdmpc2, MIT)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_PARTS = {
    "_encoder.state": "encoder",
    "_dynamics": "dynamics",
    "_reward": "reward_head",
    "_pi": "policy",
    "_termination": "termination_head",
    "_Qs.params": "q_ensemble.layers",
    "_target_Qs_params": "target_q.layers",
}
_KEY = re.compile(rf"({'|'.join(map(re.escape, _PARTS))})\.(\d+)\.(weight|bias|ln\.weight|ln\.bias)")


def from_official(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Translate the published `state_dict` of a single-task, state-based model to `WorldModel`'s keys.

    Args:
        state: the mapping under the checkpoint's key `model`.
    """
    ours: dict[str, Tensor] = {}
    for key, value in state.items():
        match = _KEY.fullmatch(key)
        if match:
            part, layer, name = match.groups()
            if "Q" in part:  # stacked over heads, where LayerNorm is part of the layer
                name = name.replace(".", "_")
            ours[f"{_PARTS[part]}.{layer}.{name}"] = value
    return ours
