"""The settings that all agents share, and how an agent's own join them.

Frozen dataclasses hold the published defaults. An agent declares its model and its update beside its code, as
`AgentSettings`; `agent_config` resolves a model size, a preset and overrides (`{"update.lr": 1e-3}`) into one
`AgentConfig`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, get_type_hints

from tdmpc_ray.core.agents import find_settings
from tdmpc_ray.core.checks import coerce, require, require_one_of, require_positive
from tdmpc_ray.core.schedules import Schedule, Scheduled, parse_schedule
from tdmpc_ray.errors import UserError, unknown

DTYPES = ("fp32", "bf16")  # of matrix products
COMPILE = ("auto", "always", "never")  # not on and off, which YAML reads as booleans


@dataclass(frozen=True)
class ModelSettings:
    """What every agent's section `model` has."""

    tf32: bool = True  # on GPUs, products and convolutions of float32 in TF32, as published
    episodic: bool = False  # predict termination; for tasks that can end before their time limit


@dataclass(frozen=True)
class UpdateSettings:
    """What every agent's section `update` has."""

    batch_size: int = 256  # sequences of `planner.horizon` transitions
    lr: float = 3e-4

    def discount(self, episode_length: int) -> float:
        """Per step, for episodes of `episode_length` agent steps."""
        raise NotImplementedError


PLANNERS = {
    "mppi": "model predictive path integral control",
    "cem": "cross-entropy method",
    "gradient": "descent along the model's gradient",
    "policy": "the policy prior alone",
}


@dataclass(frozen=True)
class PlannerConfig(Scheduled):
    """How actions are chosen; as published, by MPPI (paper, section 3.2 and table 8)."""

    section: ClassVar[str] = "planner"

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
    momentum: float | None = None  # share of the old mean that stays; None: 0.1 for cem, 0 for mppi
    gradient_steps: int = 10  # gradient: steps of Adam per decision
    gradient_lr: float = 0.1  # gradient: their rate, before squashing
    shift_images: bool = False  # while acting, too, as published; what is exported never does
    dtype: str = "fp32"  # of the matrix products: fp32 or bf16
    compile: str = "auto"  # mppi and cem by torch.compile: auto (on GPUs), always or never
    schedules: tuple[Schedule, ...] = field(default=(), metadata={"is_key": False})

    def __post_init__(self) -> None:
        require_one_of(PLANNERS, "planner.method", self.method)
        require_one_of(DTYPES, "planner.dtype", self.dtype)
        require_one_of(COMPILE, "planner.compile", self.compile)
        require_positive(self, "horizon", "num_samples", "num_elites", "iterations", "temperature", "min_std")
        require_positive(self, "gradient_steps", "gradient_lr")
        require(0 <= (self.momentum or 0) < 1, "planner.momentum must lie in [0, 1)")
        require(
            0 <= self.num_pi_trajs < self.num_samples,
            "planner.num_pi_trajs must lie in [0, planner.num_samples)",
        )
        require(self.extra_iterations >= 0, "planner.extra_iterations must not be negative")
        require(self.num_elites <= self.num_samples, "planner.num_elites must not exceed planner.num_samples")
        require(self.min_std <= self.max_std, "planner.min_std must not exceed planner.max_std")
        # What is allowed at every bend is allowed between them.
        for step in (0, *(schedule.steps for schedule in self.schedules)) if self.schedules else ():
            require(self.at(step).horizon <= self.horizon, "planner.horizon can only grow over a run")

    @property
    def kept_of_mean(self) -> float:
        """Share of the old mean that stays in each iteration."""
        return (0.1 if self.method == "cem" else 0.0) if self.momentum is None else self.momentum

    def num_iterations(self, action_dim: int) -> int:
        """Iterations of one plan for an action of `action_dim` dimensions."""
        return self.iterations + (self.extra_iterations if action_dim >= self.large_action_dim else 0)


_SEED_EPISODES = 5
_SHARE = 0.25
_SHARE_AFTER_CLONING = Schedule("demonstration_share", 0.75, _SHARE, 50_000)  # MoDem (Hansen et al., 2022)


@dataclass(frozen=True)
class DataConfig(Scheduled):
    """What is collected, kept and learned from."""

    section: ClassVar[str] = "data"

    capacity: int = 1_000_000  # transitions in the replay
    seed_steps: int | None = None  # random agent steps at the start; None: max(1000, 5 episodes of each task)
    utd_ratio: float = 1.0  # gradient updates per agent step
    priority_alpha: float = 0.0  # sequences are drawn in proportion to |TD error| ** this; 0: uniformly
    priority_beta: float = 0.4  # importance weights make up for that: not at all at 0, fully at 1
    priority_new: str = "max"  # of sequences not updated on yet: the largest priority so far, or one
    demonstrations: str = ""  # episodes to learn from, too: a folder, a file, or minari:ID
    demonstration_share: float | None = None  # of each batch; None: 0.25, after cloning 0.75 falling to it
    cloning: bool = False  # first imitate the demonstrations; the clone acts in the place of random steps
    cloning_updates: int | None = None  # None: twice as many as the demonstrations have steps
    dataset: str = ""  # folder of a dataset to learn from alone; the run takes no steps, and counts updates
    validation_share: float = 0.0  # of the episodes, kept from training to see what is learned by heart
    schedules: tuple[Schedule, ...] = field(default=(), metadata={"is_key": False})

    def __post_init__(self) -> None:
        require_positive(self, "capacity", "utd_ratio")
        require(0 <= self.validation_share < 0.5, "data.validation_share must lie in [0, 0.5)")
        require(0 <= self.priority_alpha <= 2, "data.priority_alpha must lie in [0, 2]")
        require(0 <= self.priority_beta <= 1, "data.priority_beta must lie in [0, 1]")
        require_one_of(("max", "one"), "data.priority_new", self.priority_new)
        shares = [self.share(step) for step in (0.0, math.inf)]
        require(all(0 < share < 1 for share in shares), "data.demonstration_share must lie between 0 and 1")
        is_shown = bool(self.demonstrations) or not self.cloning
        require(is_shown, "data.cloning needs data.demonstrations to imitate")
        require_positive(self, *(["cloning_updates"] if self.cloning_updates is not None else []))
        require(self.seed_steps is None or self.seed_steps > 0, "data.seed_steps must be positive")

    def share(self, step: float) -> float:
        """Of demonstrations in a batch, at an agent step."""
        share = self.at(step).demonstration_share if self.schedules else self.demonstration_share
        if share is not None:
            return share
        return _SHARE_AFTER_CLONING.at(step) if self.cloning else _SHARE

    def num_demonstrations(self, batch_size: int, step: float) -> int:
        """Sequences of a batch that are demonstrations, at an agent step."""
        return round(self.share(step) * batch_size) if self.demonstrations else 0

    def num_cloning_updates(self, demonstrated_steps: int) -> int:
        """Updates that imitate the demonstrations, before the run's first step."""
        if not self.cloning:
            return 0
        return 2 * demonstrated_steps if self.cloning_updates is None else self.cloning_updates

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
    """Everything about one agent that is not its environment; `model` and `update` are of its own kind."""

    model: Any
    planner: PlannerConfig
    update: Any
    data: DataConfig
    algorithm: str = "tdmpc2"

    @property
    def teacher(self) -> str:
        """The checkpoint whose predictions are further targets; empty: none, as in agents that take none."""
        return getattr(self.update, "teacher", "")

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict; `AgentConfig.from_dict` is its inverse."""
        scheduled = {section.section: section.to_values() for section in (self.planner, self.data)}
        return {**dataclasses.asdict(self), **scheduled}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AgentConfig:
        """Build from what `to_dict` gave.

        Raises:
            UserError: a setting that does not exist (any more), or an unknown agent.
        """
        settings = find_settings(values["algorithm"])
        sections: dict[str, Any] = {}
        for name, section in settings.sections.items():
            for key in values[name].keys() - {f.name for f in fields(section)}:
                raise UserError(f"there is no setting '{name}.{key}': another version of tdmpc_ray wrote it")
            of_values = section.from_values if issubclass(section, Scheduled) else None
            sections[name] = of_values(values[name]) if of_values else section(**values[name])
        return cls(**sections, algorithm=values["algorithm"])

    def with_settings(self, overrides: Mapping[str, Any]) -> AgentConfig:
        """The same but for some settings, by dotted keys: `{"update.lr": 1e-3, "planner.horizon": 5}`.

        Raises:
            UserError: unknown key (names the nearest), or a value out of its range.
        """
        settings, values = find_settings(self.algorithm), self.to_dict()
        for key, value in overrides.items():
            section, name = settings.split(key)
            kind = _types(settings.sections[section])[name]
            is_schedule = isinstance(value, Mapping)
            values[section][name] = (
                parse_schedule(key, value, kind).value if is_schedule else coerce(key, value, kind)
            )
        return AgentConfig.from_dict(values)


_types = functools.cache(get_type_hints)


def agent_config(
    model_size: str | int | None = None,
    preset: str = "paper",
    overrides: Mapping[str, Any] | None = None,
    algorithm: str = "tdmpc2",
) -> AgentConfig:
    """Resolve a model size, a preset and overrides, in this order, into a config.

    Args:
        model_size: a key of the agent's sizes (`5` and `"5"` are the same); None: its default.
        preset: a key of its presets.
        overrides: dotted keys to values, see `AgentConfig.with_settings`.
        algorithm: the agent, see `find_settings`.

    Raises:
        UserError: unknown agent, size, preset or key (names the nearest), or a value out of its range.
    """
    settings = find_settings(algorithm)
    size = settings.size if model_size is None else str(model_size)
    if size not in settings.sizes:
        raise UserError(f"unknown model size '{size}': choose one of: {', '.join(settings.sizes)}")
    if preset not in settings.presets:
        raise unknown("preset", preset, settings.presets)
    sized = AgentConfig(settings.sizes[size], PlannerConfig(), settings.update(), DataConfig(), algorithm)
    return sized.with_settings({**settings.presets[preset], **(overrides or {})})


PATH_SETTINGS = (
    "data.demonstrations",
    "data.dataset",
    "update.teacher",
)  # settings that name a file or a folder
_BY_NAME = "minari:"  # of Minari, which has folders of its own


def is_path(place: str) -> bool:
    """Whether the value of a setting of `PATH_SETTINGS` is a path."""
    return bool(place) and not place.startswith(_BY_NAME)
