"""TD-MPC2 as a first-class RLlib algorithm, and the experiment service around it."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
# Resolved on first use, so that `import tdmpc_ray.core` needs torch and numpy alone.
_EXPORTS = {
    "TDMPC2": "tdmpc_ray.rllib",
    "TDMPC2Config": "tdmpc_ray.rllib",
    "make_env": "tdmpc_ray.envs",
    "UserError": "tdmpc_ray.errors",
    "quiet": "tdmpc_ray.noise",
}
__all__ = ["TDMPC2", "TDMPC2Config", "UserError", "__version__", "make_env", "quiet"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'tdmpc_ray' has no attribute '{name}'")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
