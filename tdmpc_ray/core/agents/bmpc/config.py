"""The settings of BMPC where they are not TD-MPC2's."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tdmpc_ray.core.agents.tdmpc2 import config as tdmpc2
from tdmpc_ray.core.checks import require, require_positive


@dataclass(frozen=True)
class ModelConfig(tdmpc2.ModelConfig):
    """Architecture: see TD-MPC2's; `num_q` counts the heads of state values."""

    num_q: int = 2  # heads of the state values
    log_std_min: float = -3.0  # of the policy
    log_std_max: float = 1.0


@dataclass(frozen=True)
class UpdateConfig(tdmpc2.UpdateConfig):
    """One gradient step: see TD-MPC2's; and how often steps are planned for anew."""

    reanalyze_every: int = 10  # updates between two reanalyses; 0: never
    reanalyze_batch: int = 20  # sequences of the batch whose steps are planned for anew
    reanalyze_horizon: int = 3  # of these plans

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.reanalyze_every >= 0, "update.reanalyze_every must not be negative")
        require_positive(self, "reanalyze_batch", "reanalyze_horizon")
        for key in ("bc_coef", "teacher"):
            require(not getattr(self, key), f"update.{key} is of algorithm tdmpc2, not of bmpc")


def _sized(size: tdmpc2.ModelConfig) -> ModelConfig:
    names = ("enc_dim", "mlp_dim", "latent_dim", "num_enc_layers")
    return ModelConfig(**{name: getattr(size, name) for name in names})


MODEL_SIZES = {name: _sized(size) for name, size in tdmpc2.MODEL_SIZES.items()}

SETTINGS = replace(tdmpc2.SETTINGS, name="bmpc", model=ModelConfig, update=UpdateConfig, sizes=MODEL_SIZES)
