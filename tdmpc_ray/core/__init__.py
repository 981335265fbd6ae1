"""TD-MPC2 in torch and numpy: no Ray, no simulator, no tracking.

On a CPU, call `keep_freed_memory()` once and give PyTorch one thread per core that is yours.
"""

from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import MODEL_SIZES, PRESETS, AgentConfig, agent_config
from tdmpc_ray.core.kernels import keep_freed_memory
from tdmpc_ray.core.planners import PlanNoise, plan
from tdmpc_ray.core.replay import SequenceReplay
from tdmpc_ray.core.update import UpdateNoise, Updater
from tdmpc_ray.core.world_model import WorldModel

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
