"""Every hyperparameter of TD-MPC2, declared once.

Frozen dataclasses hold the published defaults; `MODEL_SIZES` and `PRESETS` override them, and
`agent_config` resolves size, preset and user overrides (`{"update.lr": 1e-3}`) into one `AgentConfig`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

from tdmpc_ray.core.checks import coerce, require, require_one_of, require_positive
from tdmpc_ray.errors import UserError, unknown

DTYPES = ("fp32", "bf16")  # of matrix products
COMPILE = ("auto", "always", "never")  # not on and off, which YAML reads as booleans


@dataclass(frozen=True)
class ModelConfig:
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
    tf32: bool = True  # on GPUs, products and convolutions of float32 in TF32, as published
    episodic: bool = False  # predict termination; for tasks that can end before their time limit

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


PLANNERS = {
    "mppi": "model predictive path integral control",
    "cem": "cross-entropy method",
    "gradient": "descent along the model's gradient",
    "policy": "the policy prior alone",
}


@dataclass(frozen=True)
class PlannerConfig:
    """How actions are chosen; as published, by MPPI (paper, section 3.2 and table 8)."""

    method: str = "mppi"  # a key of PLANNERS
    horizon: int = 3
    num_samples: int = 512  # candidates per iteration, policy trajectories included
    num_elites: int = 64
    num_pi_trajs: int = 24  # candidates rolled out by the policy prior
    iterations: int = 6
    extra_iterations: int = 2  # added where the action has at least `large_action_dim` dimensions
    large_action_dim: int = 20
    temperature: float = 0.5
    min_std: float = 0.05
    max_std: float = 2.0
    momentum: float = 0.1  # cem: share of the old mean that stays, as in TD-MPC
    gradient_steps: int = 10  # gradient: steps of Adam per decision
    gradient_lr: float = 0.1  # gradient: their rate, before squashing
    shift_images: bool = False  # while acting, too, as published; what is exported never does
    dtype: str = "fp32"  # of the matrix products: fp32 or bf16
    compile: str = "auto"  # mppi and cem by torch.compile: auto (on GPUs), always or never

    def __post_init__(self) -> None:
        require_one_of(PLANNERS, "planner.method", self.method)
        require_one_of(DTYPES, "planner.dtype", self.dtype)
        require_one_of(COMPILE, "planner.compile", self.compile)
        require_positive(self, "horizon", "num_samples", "num_elites", "iterations", "temperature", "min_std")
        require_positive(self, "gradient_steps", "gradient_lr")
        require(0 <= self.momentum < 1, "planner.momentum must lie in [0, 1)")
        require(
            0 <= self.num_pi_trajs < self.num_samples,
            "planner.num_pi_trajs must lie in [0, planner.num_samples)",
        )
        require(self.extra_iterations >= 0, "planner.extra_iterations must not be negative")
        require(self.num_elites <= self.num_samples, "planner.num_elites must not exceed planner.num_samples")
        require(self.min_std <= self.max_std, "planner.min_std must not exceed planner.max_std")

    def num_iterations(self, action_dim: int) -> int:
        """Iterations of one plan for an action of `action_dim` dimensions."""
        return self.iterations + (self.extra_iterations if action_dim >= self.large_action_dim else 0)


@dataclass(frozen=True)
class UpdateConfig:
    """One gradient step: losses, optimizers, targets (paper, section 3.1 and table 8)."""

    batch_size: int = 256  # sequences of `planner.horizon` transitions
    lr: float = 3e-4
    enc_lr_scale: float = 0.3  # the encoder learns at lr * enc_lr_scale
    pi_eps: float = 1e-5  # Adam epsilon of the policy prior
    grad_clip_norm: float = 20.0  # of the world model and of the policy prior, each on its own
    consistency_coef: float = 20.0
    reward_coef: float = 0.1
    value_coef: float = 0.1
    termination_coef: float = 1.0  # episodic tasks only
    entropy_coef: float = 1e-4
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
        require(
            0 <= self.discount_min <= self.discount_max < 1,
            "update.discount_min and update.discount_max must satisfy 0 <= min <= max < 1",
        )

    def discount(self, episode_length: int) -> float:
        """Discount for episodes of `episode_length` agent steps: longer episodes look further ahead."""
        fraction = episode_length / self.discount_denom
        return min(max((fraction - 1) / fraction, self.discount_min), self.discount_max)


_SEED_EPISODES = 5


@dataclass(frozen=True)
class DataConfig:
    """What is collected, kept and learned from."""

    capacity: int = 1_000_000  # transitions in the replay
    seed_steps: int | None = None  # random agent steps at the start; None: max(1000, 5 episodes of each task)
    utd_ratio: float = 1.0  # gradient updates per agent step
    priority_alpha: float = 0.0  # sequences are drawn in proportion to |TD error| ** this; 0: uniformly
    priority_beta: float = 0.4  # importance weights make up for that: not at all at 0, fully at 1
    priority_new: str = "max"  # of sequences not updated on yet: the largest priority so far, or one
    demonstrations: str = ""  # folder of episodes to learn from, too
    demonstration_share: float = 0.25  # their share of each batch

    def __post_init__(self) -> None:
        require_positive(self, "capacity", "utd_ratio")
        require(0 <= self.priority_alpha <= 2, "data.priority_alpha must lie in [0, 2]")
        require(0 <= self.priority_beta <= 1, "data.priority_beta must lie in [0, 1]")
        require_one_of(("max", "one"), "data.priority_new", self.priority_new)
        require(0 < self.demonstration_share < 1, "data.demonstration_share must lie between 0 and 1")
        require(self.seed_steps is None or self.seed_steps > 0, "data.seed_steps must be positive")

    def num_demonstrations(self, batch_size: int) -> int:
        """Sequences of a batch that are demonstrations."""
        return round(self.demonstration_share * batch_size) if self.demonstrations else 0

    def num_seed_steps(self, episode_length: int, num_tasks: int = 1) -> int:
        """Random agent steps before the first update.

        Args:
            episode_length: in agent steps; of several tasks, which get equally many steps, the longest.
            num_tasks: that one model learns.
        """
        if self.seed_steps is not None:
            return self.seed_steps
        return max(1000, _SEED_EPISODES * episode_length * num_tasks)

    def seed_steps_per_task(self, episode_lengths: Sequence[int]) -> list[int]:
        """Of these, how many each of several tasks takes at least; none, where their number is set in all."""
        return [0 if self.seed_steps is not None else _SEED_EPISODES * length for length in episode_lengths]


@dataclass(frozen=True)
class AgentConfig:
    """Everything about one agent that is not its environment."""

    model: ModelConfig = field(default_factory=ModelConfig)
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    update: UpdateConfig = field(default_factory=UpdateConfig)
    data: DataConfig = field(default_factory=DataConfig)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain nested dict; `AgentConfig.from_dict` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, sections: Mapping[str, Mapping[str, Any]]) -> AgentConfig:
        """Build from what `to_dict` gave.

        Raises:
            UserError: a setting that does not exist (any more).
        """
        for name, values in sections.items():
            for key in values.keys() - {f.name for f in dataclasses.fields(SECTIONS[name])}:
                raise UserError(f"there is no setting '{name}.{key}': another version of tdmpc_ray wrote it")
        return cls(**{name: SECTIONS[name](**dict(values)) for name, values in sections.items()})

    def with_settings(self, settings: Mapping[str, Any]) -> AgentConfig:
        """The same but for some settings, by dotted keys: `{"update.lr": 1e-3, "planner.horizon": 5}`.

        Raises:
            UserError: unknown key (names the nearest), or a value out of its range.
        """
        values = self.to_dict()
        for key, value in settings.items():
            section, name = split_key(key)
            values[section][name] = coerce(key, value, _types(SECTIONS[section])[name])
        return AgentConfig.from_dict(values)


_types = functools.cache(get_type_hints)

SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "planner": PlannerConfig,
    "update": UpdateConfig,
    "data": DataConfig,
}

# Paper, table 9; `tiny` is ours, for tests and laptops.
MODEL_SIZES = {
    "tiny": ModelConfig(enc_dim=64, mlp_dim=128, latent_dim=64, num_enc_layers=2, num_q=2),
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


def agent_config(
    model_size: str | int = "5", preset: str = "paper", overrides: Mapping[str, Any] | None = None
) -> AgentConfig:
    """Resolve a model size, a preset and overrides, in this order, into a config.

    Args:
        model_size: a key of `MODEL_SIZES` (`5` and `"5"` are the same).
        preset: a key of `PRESETS`.
        overrides: dotted keys to values, see `AgentConfig.with_settings`.

    Raises:
        UserError: unknown size, preset or key (names the nearest), or a value out of its range.
    """
    size = str(model_size)
    if size not in MODEL_SIZES:
        raise UserError(f"unknown model size '{size}': choose one of: {', '.join(MODEL_SIZES)}")
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    sized = AgentConfig(model=MODEL_SIZES[size])
    return sized.with_settings({**PRESETS[preset], **(overrides or {})})


PATH_SETTINGS = ("data.demonstrations",)  # settings that name a file or a folder


def known_keys() -> list[str]:
    """All dotted keys that overrides may name."""
    return [f"{name}.{f.name}" for name, section in SECTIONS.items() for f in fields(section)]


def split_key(key: str) -> tuple[str, str]:
    """Split `update.lr` into section and field; an unknown key is a UserError that names the nearest."""
    if key not in known_keys():
        raise unknown("setting", key, known_keys())
    section, _, name = key.partition(".")
    return section, name
