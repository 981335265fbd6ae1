"""Agents in torch and numpy: no Ray, no simulator, no tracking.

On a CPU, call `keep_freed_memory()` once and give PyTorch one thread per core that is yours.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tdmpc_ray.core.agents.tdmpc2.config import MODEL_SIZES, PRESETS
    from tdmpc_ray.core.agents.tdmpc2.functions import plan
    from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater
    from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
    from tdmpc_ray.core.batch import Batch
    from tdmpc_ray.core.config import AgentConfig, agent_config
    from tdmpc_ray.core.nn.kernels import keep_freed_memory
    from tdmpc_ray.core.planners import PlanNoise
    from tdmpc_ray.core.replay.sequences import SequenceReplay

# Resolved on first use, so that whoever needs a setting's name does not wait for torch.
_EXPORTS = {
    "MODEL_SIZES": "agents.tdmpc2.config",
    "PRESETS": "agents.tdmpc2.config",
    "AgentConfig": "config",
    "Batch": "batch",
    "PlanNoise": "planners",
    "SequenceReplay": "replay.sequences",
    "UpdateNoise": "agents.tdmpc2.update",
    "Updater": "agents.tdmpc2.update",
    "WorldModel": "agents.tdmpc2.world_model",
    "agent_config": "config",
    "keep_freed_memory": "nn.kernels",
    "plan": "agents.tdmpc2.functions",
}
__all__ = [
    "MODEL_SIZES",
    "PRESETS",
    "AgentConfig",
    "Batch",
    "PlanNoise",
    "SequenceReplay",
    "UpdateNoise",
    "Updater",
    "WorldModel",
    "agent_config",
    "keep_freed_memory",
    "plan",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'tdmpc_ray.core' has no attribute '{name}'")
    return getattr(importlib.import_module(f"tdmpc_ray.core.{_EXPORTS[name]}"), name)
