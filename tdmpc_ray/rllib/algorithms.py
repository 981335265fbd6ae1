"""The agents as RLlib algorithms: a class and a config for each that is named here."""

from __future__ import annotations

from tdmpc_ray.rllib.algorithm import AgentAlgorithm
from tdmpc_ray.rllib.config import AgentAlgorithmConfig


class TDMPC2(AgentAlgorithm):
    """TD-MPC2 (Hansen et al., 2024) with planning env runners and a replay inside the learner."""


class TDMPC2Config(AgentAlgorithmConfig):
    """Configures `TDMPC2`.

    Example:
        >>> config = TDMPC2Config().environment("walker-walk").training(model_size=1, preset="light")
        >>> config.build_algo().train()  # doctest: +SKIP
    """

    algorithm_class = TDMPC2


TDMPC2.new_config = staticmethod(lambda: TDMPC2Config())
_CONFIGS = {"tdmpc2": TDMPC2Config}


def new_config(algorithm: str = "tdmpc2") -> AgentAlgorithmConfig:
    """The config of an algorithm by its name; of an agent of one's own, see `core.agents.find_agent`."""
    return _CONFIGS.get(algorithm, AgentAlgorithmConfig)().training(agent_name=algorithm)
