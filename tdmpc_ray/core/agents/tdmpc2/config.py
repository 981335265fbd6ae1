"""The settings of TD-MPC2 that are not a planner's or the replay's, its model sizes and its presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tdmpc_ray.core.agent_settings import AgentSettings
from tdmpc_ray.core.checks import require, require_one_of, require_positive
from tdmpc_ray.core.config import COMPILE, DTYPES, ModelSettings, UpdateSettings

EMBEDDING = "embedding"
PARTS = ("encoder", "dynamics", "reward", "value", "policy", "termination", EMBEDDING)


@dataclass(frozen=True)
class ModelConfig(ModelSettings):
    """Architecture of the world model; the sizes of observation and action come from the environment."""

    enc_dim: int = 256  # width of the encoder's hidden layers
    mlp_dim: int = 512  # width of every other hidden layer
    latent_dim: int = 512
    num_enc_layers: int = 2  # hidden layers of the encoder: max(num_enc_layers - 1, 1)
    num_q: int = 5  # heads of the Q ensemble
    simnorm_dim: int = 8  # group size of SimNorm; 0: latents are not normalised
    num_channels: int = 32  # of each convolution, for pixels
    task_dim: int = 96  # of the task embedding, with several tasks
    num_bins: int = 101  # of the two-hot encoded reward and value; 1: squared error in symlog space instead
    vmin: float = -10.0  # first and last bin, in symlog space
    vmax: float = 10.0
    dropout: float = 0.01  # first hidden layer of the Q heads
    log_std_min: float = -10.0  # of the policy prior
    log_std_max: float = 2.0

    def __post_init__(self) -> None:
        require_positive(self, "enc_dim", "mlp_dim", "latent_dim", "num_enc_layers", "num_q", "num_bins")
        require_positive(self, "num_channels")
        require(self.task_dim >= 0, "model.task_dim must not be negative")
        require(self.simnorm_dim >= 0, "model.simnorm_dim must not be negative")
        require(
            self.simnorm_dim == 0 or self.latent_dim % self.simnorm_dim == 0,
            "model.latent_dim must be a multiple of model.simnorm_dim",
        )
        require(self.num_q >= 2, "model.num_q must be at least 2: targets take the minimum of two heads")
        require(self.vmin < self.vmax, "model.vmin must be below model.vmax")
        require(0 <= self.dropout < 1, "model.dropout must lie in [0, 1)")
        require(self.log_std_min < self.log_std_max, "model.log_std_min must be below model.log_std_max")


@dataclass(frozen=True)
class UpdateConfig(UpdateSettings):
    """One gradient step: losses, optimizers, targets (paper, section 3.1 and table 8)."""

    lr: float = 3e-4
    enc_lr_scale: float = 0.3  # the encoder learns at lr * enc_lr_scale
    pi_eps: float = 1e-5  # Adam epsilon of the policy prior
    grad_clip_norm: float = 20.0  # of the world model and of the policy prior, each on its own
    consistency_coef: float = 20.0
    reward_coef: float = 0.1
    value_coef: float = 0.1
    termination_coef: float = 1.0  # episodic tasks only
    entropy_coef: float = 1e-4
    bc_coef: float = 0.0  # of the policy's squared distance to the data's actions; datasets need it
    train: str = ""  # parts that learn, `policy+embedding`; empty: all
    teacher: str = ""  # checkpoint of a larger model whose predictions are further targets
    teacher_reward_coef: float = 0.1  # of the distance to its rewards
    teacher_value_coef: float = 0.0  # of the distance to its values
    rho: float = 0.5  # weight of step t in every loss: rho ** t
    tau: float = 0.01  # Polyak rate of the target heads and rate of the running scale
    discount_denom: float = 5.0
    discount_min: float = 0.95
    discount_max: float = 0.995
    dtype: str = "fp32"  # of the matrix products: fp32 or bf16
    compile: str = "auto"  # by torch.compile: auto (on GPUs), always or never

    def __post_init__(self) -> None:
        require_one_of(DTYPES, "update.dtype", self.dtype)
        require_one_of(COMPILE, "update.compile", self.compile)
        require_positive(
            self, "batch_size", "lr", "enc_lr_scale", "pi_eps", "grad_clip_norm", "rho", "discount_denom"
        )
        require(0 < self.tau <= 1, "update.tau must lie in (0, 1]")
        require(self.teacher_reward_coef >= 0, "update.teacher_reward_coef must not be negative")
        require(self.teacher_value_coef >= 0, "update.teacher_value_coef must not be negative")
        for part in self.train.split("+") if self.train else ():
            require_one_of(PARTS, "update.train", part)
        require(self.bc_coef >= 0, "update.bc_coef must not be negative")
        require(
            0 <= self.discount_min <= self.discount_max < 1,
            "update.discount_min and update.discount_max must satisfy 0 <= min <= max < 1",
        )

    def discount(self, episode_length: int) -> float:
        """Discount for episodes of `episode_length` agent steps: longer episodes look further ahead."""
        fraction = episode_length / self.discount_denom
        return min(max((fraction - 1) / fraction, self.discount_min), self.discount_max)


# Paper, table 9, from 1 on; those below are ours, for scaling studies on CPUs, `tiny` for tests and laptops.
MODEL_SIZES = {
    "0.05": ModelConfig(enc_dim=48, mlp_dim=56, latent_dim=32, num_enc_layers=2, num_q=2),
    "0.1": ModelConfig(enc_dim=64, mlp_dim=88, latent_dim=48, num_enc_layers=2, num_q=2),
    "tiny": ModelConfig(enc_dim=64, mlp_dim=128, latent_dim=64, num_enc_layers=2, num_q=2),
    "0.3": ModelConfig(enc_dim=128, mlp_dim=160, latent_dim=64, num_enc_layers=2, num_q=2),
    "0.6": ModelConfig(enc_dim=192, mlp_dim=256, latent_dim=96, num_enc_layers=2, num_q=2),
    "1": ModelConfig(enc_dim=256, mlp_dim=384, latent_dim=128, num_enc_layers=2, num_q=2),
    "5": ModelConfig(enc_dim=256, mlp_dim=512, latent_dim=512, num_enc_layers=2, num_q=5),
    "19": ModelConfig(enc_dim=1024, mlp_dim=1024, latent_dim=768, num_enc_layers=3, num_q=5),
    "48": ModelConfig(enc_dim=1792, mlp_dim=1792, latent_dim=768, num_enc_layers=4, num_q=5),
    "317": ModelConfig(enc_dim=4096, mlp_dim=4096, latent_dim=1376, num_enc_layers=5, num_q=8),
}

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    # For CPUs: a quarter of the planning work and half the batch; everything else as published.
    "light": {
        "planner.num_samples": 128,
        "planner.num_elites": 16,
        "planner.num_pi_trajs": 8,
        "planner.iterations": 4,
        "update.batch_size": 128,
    },
}

_GYMNASIUM = {"update.discount_max": 0.99, "update.rho": 0.7}
SUITES = {"gymnasium": _GYMNASIUM, "box2d": _GYMNASIUM}

SETTINGS = AgentSettings("tdmpc2", ModelConfig, UpdateConfig, MODEL_SIZES, PRESETS, SUITES, "5")
