"""TD-MPC2 and TD-MPC as first-class RLlib algorithms, and the experiment service around them."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
# Resolved on first use, so that `import tdmpc_ray.core` needs torch and numpy alone.
_EXPORTS = {
    "TDMPC": "tdmpc_ray.rllib",
    "TDMPC2": "tdmpc_ray.rllib",
    "TDMPC2Config": "tdmpc_ray.rllib",
    "TDMPCConfig": "tdmpc_ray.rllib",
    "make_env": "tdmpc_ray.envs",
    "UserError": "tdmpc_ray.errors",
    "quiet": "tdmpc_ray.noise",
}
__all__ = ["TDMPC", "TDMPC2", "TDMPC2Config", "TDMPCConfig", "UserError", "__version__", "make_env", "quiet"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'tdmpc_ray' has no attribute '{name}'")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
