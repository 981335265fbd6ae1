"""The settings of TD-MPC that are not a planner's or the replay's, its sizes, presets and tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tdmpc_ray.core.agent_settings import AgentSettings
from tdmpc_ray.core.checks import require, require_one_of, require_positive
from tdmpc_ray.core.config import COMPILE, DTYPES, ModelSettings, UpdateSettings


@dataclass(frozen=True)
class ModelConfig(ModelSettings):
    """Architecture of the task-oriented latent dynamics model (Hansen et al., 2022, appendix F)."""

    enc_dim: int = 256  # width of the encoder's hidden layer
    mlp_dim: int = 512  # width of every other hidden layer
    latent_dim: int = 50
    num_channels: int = 32  # of each convolution, for pixels
    policy_std: float = 0.05  # of the policy's actions in targets, in its loss, and within plans

    def __post_init__(self) -> None:
        require_positive(self, "enc_dim", "mlp_dim", "latent_dim", "num_channels", "policy_std")
        require(
            not self.episodic,
            "TD-MPC cannot foresee that a task ends: use algorithm tdmpc2, or set model.episodic to false",
        )


@dataclass(frozen=True)
class UpdateConfig(UpdateSettings):
    """One gradient step (Hansen et al., 2022, algorithm 2 and appendix F)."""

    batch_size: int = 512
    lr: float = 1e-3
    grad_clip_norm: float = 10.0  # of the model and of the policy, each on its own
    consistency_coef: float = 2.0
    reward_coef: float = 0.5
    value_coef: float = 0.1
    rho: float = 0.5  # weight of step t in every loss: rho ** t
    tau: float = 0.01  # rate at which the target model follows
    target_every: int = 2  # updates between two moves of the target model
    joint: bool = False  # model and policy in one gradient step, as the distributed version has it
    gamma: float = 0.99  # discount of every task
    dtype: str = "fp32"  # of the matrix products: fp32 or bf16
    compile: str = "auto"  # by torch.compile: auto (on GPUs), always or never

    def __post_init__(self) -> None:
        require_one_of(DTYPES, "update.dtype", self.dtype)
        require_one_of(COMPILE, "update.compile", self.compile)
        require_positive(self, "batch_size", "lr", "grad_clip_norm", "rho", "target_every")
        require(0 < self.tau <= 1, "update.tau must lie in (0, 1]")
        require(0 < self.gamma < 1, "update.gamma must lie in (0, 1)")

    def discount(self, episode_length: int) -> float:
        """The same for every task."""
        return self.gamma


MODEL_SIZES = {
    "tiny": ModelConfig(enc_dim=64, mlp_dim=128),  # ours, for tests and laptops
    "1": ModelConfig(),
}

_PLANNER = {
    "planner.horizon": {"linear": [1, 5, 25_000]},
    "planner.num_samples": 537,  # 512 drawn beside the policy's
    "planner.num_pi_trajs": 25,
    "planner.extra_iterations": 0,
    "planner.min_std": {"linear": [0.5, 0.05, 25_000]},
    "planner.momentum": 0.1,
}
_DATA = {"data.priority_alpha": 0.6, "data.priority_beta": 0.4, "data.seed_steps": 5000}

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {**_PLANNER, **_DATA},
    # For CPUs, as of TD-MPC2: a quarter of the planning work, and smaller batches.
    "light": {
        **_PLANNER,
        **_DATA,
        "planner.num_samples": 136,
        "planner.num_elites": 16,
        "planner.num_pi_trajs": 8,
        "planner.iterations": 4,
        "update.batch_size": 128,
        "data.seed_steps": 2500,
    },
}

# Where the published settings of tasks differ.
_DOG = {"model.latent_dim": 100, "planner.iterations": 8, "update.lr": 3e-4}
_HUMANOID = {"model.latent_dim": 100, "planner.iterations": 12}
_PIXELS = {"update.lr": 3e-4}
_DOMAINS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "dog": {**_DOG, "update.batch_size": 2048},
        "humanoid": _HUMANOID,
        "rgb": {**_PIXELS, "update.batch_size": 256},
    },
    "light": {"dog": _DOG, "humanoid": _HUMANOID, "rgb": _PIXELS},
}

SETTINGS = AgentSettings(
    "tdmpc",
    ModelConfig,
    UpdateConfig,
    MODEL_SIZES,
    PRESETS,
    default_size="1",
    learns_sets=False,
    repeats={"": 4, "cartpole": 8, "finger": 2, "walker": 2, "dog": 2, "humanoid": 2},
    domains=_DOMAINS,
)
