"""The contract: all that the rest of the house knows of an agent.

    z = agent.encode(networks, obs, task, shift)
    decision = agent.decide(networks, z, prev_mean, cfg, noise, ...)        # an env runner, a server, a file
    metrics = updater.step(batch, agent.draw_update(networks, cfg, ...))    # the learner

An agent has no state of its own: parameters live in its `Networks`, what an update changes beside them in its
`Updater`, and plans with whoever acts. All randomness is drawn beforehand and handed in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from tdmpc_ray.core.agent_settings import AgentSettings
from tdmpc_ray.core.batch import Batch, Observation
from tdmpc_ray.core.config import AgentConfig, ModelSettings, PlannerConfig
from tdmpc_ray.core.parallel import Replicas
from tdmpc_ray.core.planners.contract import Plan, PlanNoise
from tdmpc_ray.errors import UserError


class Networks(nn.Module):
    """All networks of an agent.

    Attributes:
        obs_shape: of an observation, (O,) or (C, 64, 64); the largest task's.
        action_dim: numbers in an action; the largest task's.
        vector_dim: of the vector beside images; 0: there is none.
        num_tasks: of a set; 0 for a single task.
        num_q: value heads that a plan draws from.
        action_masks: 1.0 for the numbers that a task's action has, (tasks, A).
        learning_only: parts that nobody needs to act, by the beginnings of their parameters' names.
        planning_only: likewise, parts that `policy_mean` does without.
        optional: likewise, parts that may be missing in networks that a run begins with.
    """

    obs_shape: tuple[int, ...]
    action_dim: int
    vector_dim: int = 0
    num_tasks: int = 0
    num_q: int = 1
    action_masks: Tensor
    learning_only: ClassVar[tuple[str, ...]] = ()
    planning_only: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[tuple[str, ...]] = ()

    @property
    def device(self) -> torch.device:
        """Of the parameters."""
        return next(self.parameters()).device

    def num_params(self) -> int:
        """Parameters that are learned, as the papers count them: without target networks."""
        return sum(
            p.numel() for name, p in self.named_parameters() if not name.startswith(self.learning_only)
        )

    def task_vectors(self) -> Tensor | None:
        """What `task` tells of each task, (tasks, T); None where there are no vectors."""
        return None

    def renew_targets(self) -> None:
        """Begin what follows the networks slowly, where it follows parts that cloning changes, at these."""

    def task(self, task_id: Tensor | None) -> Any:
        """What `encode` and `decide` are told about tasks: ids (...,), or None for a single task."""
        return None


class Updater(Protocol):
    """Takes gradient steps on networks.

    Attributes:
        td_error: of each sequence of the last batch, absolute, (B,): its priority; None where the updater has
            none, which it needs only for a batch with weights.
    """

    td_error: Tensor | None

    def step(self, batch: Batch, noise: Any) -> dict[str, Tensor]:
        """Take one gradient step; where loss or gradient is not finite, none, and `skipped` is 1.

        Returns:
            Metrics as 0-d tensors on the networks' device, `skipped` among them.
        """

    def validate(self, batch: Batch, noise: Any) -> dict[str, Tensor]:
        """Losses of the model on a batch, without learning from it.

        Returns:
            `td_error` (absolute), `consistency` and `reward`, as 0-d tensors on the networks' device.
        """

    def state(self) -> dict[str, Tensor]:
        """What has to be kept beside networks and optimizers; tensors are copied into by a restore."""


class Costs(NamedTuple):
    """Floating-point operations."""

    per_plan: int  # one decision for one environment
    per_update: int


class Published(NamedTuple):
    """What a checkpoint of the agent's published code tells.

    Attributes:
        parameters: under the keys of the agent's networks.
        model: the architecture that they belong to.
        known: fields of `model` that the tensors tell; the others are the task's or the defaults.
        obs: what it observes, "state" or "rgb".
        action_dims: sizes of the tasks' actions, for a model of several, where the file says them.
        num_tasks: 0 for a single task.
    """

    parameters: dict[str, Tensor]
    model: ModelSettings
    known: tuple[str, ...]
    obs: str
    action_dims: list[int] | None
    num_tasks: int


class Agent(ABC):
    """One algorithm.

    Attributes:
        settings: what it declares of its settings.
    """

    settings: AgentSettings

    @abstractmethod
    def make_networks(
        self,
        obs_shape: Sequence[int],
        action_dim: int,
        cfg: Any,
        *,
        action_dims: Sequence[int] | None = None,
        vector_dim: int = 0,
        learns: bool = True,
    ) -> Networks:
        """Networks with initial weights.

        Args:
            obs_shape: (O,), zero-padded to the largest task's; or (C, 64, 64) for stacked frames of 0 to 255.
            action_dim: numbers in an action; the largest task's.
            cfg: section `model`.
            action_dims: sizes of the tasks' own actions, for a set of tasks.
            vector_dim: of the vector beside frames; 0: there is none.
            learns: with what only updates need.
        """

    @abstractmethod
    def encode(
        self, networks: Any, obs: Observation, task: Any = None, shift: Tensor | None = None
    ) -> Tensor:
        """Observations to what decisions are made from, (N, Z).

        Args:
            obs: (N, ...).
            task: see `Networks.task`.
            shift: pixels to move each image by, (N, 2).
        """

    @abstractmethod
    def decide(
        self,
        networks: Any,
        z: Tensor,
        prev_mean: Tensor,
        cfg: PlannerConfig,
        noise: PlanNoise,
        *,
        discount: float | Tensor,
        explore: bool,
        task: Any = None,
    ) -> Plan:
        """One action per environment.

        Args:
            z: (N, Z), from `encode`.
            prev_mean: mean of the previous step's plan, (N, H, A) in [-1, 1]; zeros at an episode's start.
            cfg: section `planner`.
            noise: this plan's randomness.
            discount: per step; of each environment's task, (N,), with several.
            explore: act with the planner's noise.
            task: see `Networks.task`.
        """

    @abstractmethod
    def policy_mean(self, networks: Any, z: Tensor, task: Any = None) -> Tensor:
        """The mode of the policy that needs no planning, (N, A) in [-1, 1]."""

    @abstractmethod
    def make_optimizers(self, networks: Any, cfg: Any) -> dict[str, torch.optim.Optimizer]:
        """Optimizers by name; `cfg` is section `update`."""

    @abstractmethod
    def make_updater(
        self,
        networks: Any,
        cfg: Any,
        discount: float | Sequence[float],
        optimizers: Mapping[str, torch.optim.Optimizer],
        replicas: Replicas | None,
    ) -> Updater:
        """What takes gradient steps.

        Args:
            networks: made with `learns`.
            cfg: section `update`.
            discount: per step; of each task, with several.
            optimizers: from `make_optimizers`.
            replicas: with whom to take each step, where this is one of several.
        """

    @abstractmethod
    def draw_update(
        self,
        networks: Any,
        horizon: int,
        batch_size: int,
        generator: torch.Generator,
        heads_generator: torch.Generator | None = None,
    ) -> Any:
        """The randomness of one update, on the generator's device.

        Args:
            heads_generator: draws what several replicas have in common; None: `generator`.
        """

    @abstractmethod
    def costs(self, networks: Any, cfg: AgentConfig, teacher: Any = None) -> Costs:
        """Operations of a decision and of an update; `teacher`: see `AgentConfig.teacher`."""

    def extra_dim(self, action_dim: int) -> int:
        """E, numbers that the agent keeps with every step beside what happened; see `Batch.extra`."""
        return 0

    def extra_of(self, plan: Plan) -> Tensor:
        """What it keeps of the plans that chose actions, (N, E)."""
        raise NotImplementedError

    def extra_unplanned(self, actions: Tensor) -> Tensor:
        """What it keeps of steps that nothing was planned for, as at random, (N, A) -> (N, E)."""
        raise NotImplementedError

    def reanalyze(
        self,
        networks: Any,
        batch: Batch,
        cfg: AgentConfig,
        update: int,
        generator: torch.Generator,
        discount: float | Tensor,
    ) -> Tensor | None:
        """Before an update, what is kept with the first sequences of its batch as today's networks see it.

        Args:
            batch: on the networks' device.
            cfg: all settings; the planner's as of this update.
            update: how many came before.
            generator: on the device.
            discount: per step; of each task, with several.

        Returns:
            (H, R, E) for the first R sequences, which goes back into the replay; None: it stays as it is.
        """
        return None

    def of_one_task(self, state: Mapping[str, Tensor], shares: Tensor, own: Networks) -> dict[str, Tensor]:
        """Parameters for a single task's networks, made of those of several tasks.

        Args:
            state: of networks of N tasks.
            shares: of each task in what the new one is told about itself, (N,).
            own: the single task's networks, for their sizes.

        Raises:
            UserError: the agent has no networks of several tasks, or none of such a task's kind.
        """
        raise UserError(f"algorithm '{self.settings.name}' makes no networks of one task of those of several")

    def of_tasks(self, state: Mapping[str, Tensor], shares: Tensor) -> dict[str, Tensor]:
        """Parameters for the networks of M tasks, made of those of N others of the same sizes.

        Args:
            state: of networks of N tasks.
            shares: of each of them in what the networks are told about a new one, (M, N).

        Raises:
            UserError: the agent has no networks of several tasks.
        """
        raise UserError(f"algorithm '{self.settings.name}' has no networks of several tasks")

    def model_error(self, networks: Any, batch: Batch, cfg: Any) -> Tensor:
        """How badly networks of one task foresee what happened in a batch, (); `cfg` is section `update`.

        Raises:
            UserError: as `of_one_task`.
        """
        raise UserError(f"algorithm '{self.settings.name}' makes no networks of one task of those of several")

    def read_published(self, path: Path) -> Published:
        """Read a checkpoint of the agent's published code.

        Raises:
            UserError: the file cannot be read, or there is no such code.
        """
        raise self._no_published_code()

    def to_published(self, networks: Any, **options: Any) -> dict[str, Any]:
        """The content of the file that the published code saves; `read_published` is its inverse.

        Args:
            options: of the agent.

        Raises:
            UserError: the published code has no such networks, or there is no such code.
        """
        raise self._no_published_code()

    def _no_published_code(self) -> Exception:
        return UserError(f"algorithm '{self.settings.name}' has no published checkpoints")
