"""TD-MPC2 as an RLlib algorithm."""

from tdmpc_ray.rllib.algorithm import TDMPC2
from tdmpc_ray.rllib.collect import CollectReplays
from tdmpc_ray.rllib.config import TDMPC2Config

__all__ = ["TDMPC2", "CollectReplays", "TDMPC2Config"]
