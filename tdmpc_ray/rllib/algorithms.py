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


class TDMPC(AgentAlgorithm):
    """TD-MPC (Hansen et al., 2022), on the same dataflow."""


class TDMPCConfig(AgentAlgorithmConfig):
    """Configures `TDMPC`.

    Example:
        >>> config = TDMPCConfig().environment("walker-walk").training(preset="light")
        >>> config.build_algo().train()  # doctest: +SKIP
    """

    algorithm_class = TDMPC

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class)
        self.agent_name = "tdmpc"


class BMPC(AgentAlgorithm):
    """BMPC (Wang et al., ICLR 2025): TD-MPC2, but its policy imitates the planner."""


class BMPCConfig(AgentAlgorithmConfig):
    """Configures `BMPC`.

    Example:
        >>> config = BMPCConfig().environment("walker-walk").training(model_size=1, preset="light")
        >>> config.build_algo().train()  # doctest: +SKIP
    """

    algorithm_class = BMPC

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class)
        self.agent_name = "bmpc"


TDMPC2.new_config = staticmethod(lambda: TDMPC2Config())
TDMPC.new_config = staticmethod(lambda: TDMPCConfig())
BMPC.new_config = staticmethod(lambda: BMPCConfig())
_CONFIGS: dict[str, type[AgentAlgorithmConfig]] = {
    "tdmpc2": TDMPC2Config,
    "tdmpc": TDMPCConfig,
    "bmpc": BMPCConfig,
}


def new_config(algorithm: str = "tdmpc2") -> AgentAlgorithmConfig:
    """The config of an algorithm by its name; of an agent of one's own, see `core.agents.find_agent`."""
    return _CONFIGS.get(algorithm, AgentAlgorithmConfig)().training(agent_name=algorithm)
