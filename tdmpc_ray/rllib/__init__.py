"""The agents as RLlib algorithms."""

from tdmpc_ray.envs.gl import without_gl

without_gl()  # RLlib imports dm_control

from tdmpc_ray.rllib.algorithms import TDMPC, TDMPC2, TDMPC2Config, TDMPCConfig, new_config  # noqa: E402
from tdmpc_ray.rllib.checkpoints.garbage import CollectReplays  # noqa: E402
from tdmpc_ray.rllib.evaluation.of_checkpoints import evaluate_checkpoint, load_agent  # noqa: E402

__all__ = [
    "TDMPC",
    "TDMPC2",
    "CollectReplays",
    "TDMPC2Config",
    "TDMPCConfig",
    "evaluate_checkpoint",
    "load_agent",
    "new_config",
]
