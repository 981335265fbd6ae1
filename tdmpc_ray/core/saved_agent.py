"""A trained agent as a folder of two files that acts without Ray: what it is, as JSON, and its weights.

No replay, no optimizer, no pickled code. `PlanningAgent` owns no plan: state goes in and comes out.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmpc_ray.core.agents import find_agent
from tdmpc_ray.core.agents.agent import Networks
from tdmpc_ray.core.config import AgentConfig, PlannerConfig
from tdmpc_ray.core.nn.precision import prepare_device
from tdmpc_ray.core.planners import PlanNoise
from tdmpc_ray.errors import UserError, reason, unknown

DESCRIPTION_FILE = "agent.json"
WEIGHTS_FILE = "weights.pt"
METHODS = ("plan", "policy")
_FORMAT = 2
# The dimension of each noise that counts environments; the heads are the same for all.
_ENV_DIM = {"pi": 1, "candidates": 2, "value_pi": 1, "gumbel": 0, "explore": 0, "shift": 0}


@dataclass(frozen=True)
class AgentDescription:
    """What an agent is, but for its weights.

    Attributes:
        settings: of the agent, as `AgentConfig.to_dict` gives them.
        obs_shape: of an observation, (O,) or (C, 64, 64); the largest task's.
        action_dim: numbers in an action; the largest task's.
        discount: per step; of each task, with several.
        task: its name in the catalog; None for an environment of one's own.
        tasks: names of a set's tasks in the order of their ids; empty with one task.
        obs_dims: numbers in an observation of each of these.
        action_dims: numbers in an action of each of these.
        versions: of the packages that wrote it.
    """

    settings: dict[str, Any]
    obs_shape: tuple[int, ...]
    action_dim: int
    discount: float | list[float]
    task: str | None
    tasks: tuple[str, ...] = ()
    obs_dims: tuple[int, ...] = ()
    action_dims: tuple[int, ...] = ()
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def is_images(self) -> bool:
        """Whether it observes stacked camera frames of 0 to 255."""
        return len(self.obs_shape) == 3

    def task_id(self, task: str | None) -> int | None:
        """Id of a set's task, None for an agent of one task.

        Raises:
            UserError: no such task, or none named where the agent knows several.
        """
        known = self.tasks or ((self.task,) if self.task else ())
        if task is not None and not known:
            raise UserError(f"this agent's task has no name: leave '{task}' out")
        if task is not None and task not in known:
            raise unknown("task", task, known)
        if not self.tasks:
            return None
        if task is None:
            raise UserError(f"say which task: this agent knows {', '.join(self.tasks)}")
        return self.tasks.index(task)

    def shapes(self, task_id: int | None) -> tuple[tuple[int, ...], int]:
        """Shape of an observation, and length of an action, of a task."""
        if task_id is None:
            return self.obs_shape, self.action_dim
        return (self.obs_dims[task_id],), self.action_dims[task_id]


def write_agent(folder: Path, description: AgentDescription, networks: Networks) -> None:
    """Write an agent into a folder, which is made; what only learning needs stays behind."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": _FORMAT, **dataclasses.asdict(description)}, indent=1)
    (folder / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")
    state = networks.state_dict()
    weights = {k: v.cpu() for k, v in state.items() if not k.startswith(networks.learning_only)}
    torch.save(weights, folder / WEIGHTS_FILE)


def read_agent(
    folder: Path,
    device: str | torch.device = "cpu",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> PlanningAgent:
    """Read what `write_agent` wrote.

    Args:
        folder: with the two files.
        device: to plan on.
        settings: of the planner, where they shall differ from those of the training.
        seed: of the planner's noise.

    Raises:
        UserError: a file is missing, damaged or of another version; unknown settings.
    """
    for key in settings or {}:
        if not key.startswith("planner."):
            raise UserError(f"only settings of the planner can change after the training, not '{key}'")
    try:
        values = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        version = values.pop("format")
        if version != _FORMAT:
            raise UserError(f"{folder} is of format {version}, this version of tdmpc_ray reads {_FORMAT}")
        tuples = ("obs_shape", "tasks", "obs_dims", "action_dims")
        description = AgentDescription(**{**values, **{name: tuple(values[name]) for name in tuples}})
        cfg = AgentConfig.from_dict(description.settings).with_settings(settings or {})
        networks = find_agent(cfg.algorithm).make_networks(
            description.obs_shape,
            description.action_dim,
            cfg.model,
            action_dims=description.action_dims or None,
            learns=False,
        )
        weights = torch.load(folder / WEIGHTS_FILE, map_location="cpu", weights_only=True)
        networks.load_state_dict(weights)
    except UserError:
        raise
    except Exception as error:  # a torn file may fail in any way
        raise UserError(f"no agent can be read from {folder}: {reason(error)}") from error
    networks = networks.to(device)
    prepare_device(networks.device, cfg.model.tf32)
    return PlanningAgent(description, cfg, networks, seed)


class PlanningAgent:
    """Decides in evaluation mode, for any number of environments at once.

    All decisions with the same generator state are the same, whichever others are made beside them: each
    environment has noise of its own. Only the pairs of Q heads that value the candidates are drawn once for
    all, from the seed, because environments that are planned for together share them.

    Args:
        description: of the agent.
        config: its settings.
        networks: on the device to plan on.
        seed: of the noise.
    """

    def __init__(
        self, description: AgentDescription, config: AgentConfig, networks: Networks, seed: int = 0
    ) -> None:
        self.description, self.config, self.seed = description, config, seed
        self.agent = find_agent(config.algorithm)
        self.networks = networks.eval().requires_grad_(False)
        self.device = networks.device
        self._heads = {
            method: PlanNoise.sample(networks, self._planner(method), 1, self.generator()).heads
            for method in METHODS
        }

    def generator(self) -> torch.Generator:
        """The random stream of one environment, at its beginning."""
        return torch.Generator(self.device).manual_seed(self.seed)

    def noise(self, generator: torch.Generator, method: str = "plan") -> PlanNoise:
        """Draw the noise of one decision for one environment."""
        drawn = PlanNoise.sample(self.networks, self._planner(method), 1, generator)
        return replace(drawn, heads=self._heads[method])

    def no_plan(self, num: int) -> Tensor:
        """What stands for the previous plan at an episode's start, (num, H, A)."""
        return torch.zeros(num, self.config.planner.horizon, self.networks.action_dim, device=self.device)

    def decide(
        self,
        obs: Tensor,
        prev_mean: Tensor,
        noises: Sequence[PlanNoise],
        task_ids: Sequence[int] | None = None,
        method: str = "plan",
    ) -> tuple[Tensor, Tensor]:
        """Choose an action for each of N environments.

        Args:
            obs: (N, O), filled up with zeros to the largest task's length; or (N, 9, 64, 64).
            prev_mean: the mean of each one's previous plan, (N, H, A); zeros at an episode's start.
            noises: of each, from `noise`.
            task_ids: of each, for a set of tasks.
            method: `plan`, or `policy`: the policy prior's mode.

        Returns:
            Actions in [-1, 1], (N, A), and the plans' means, (N, H, A).
        """
        ids = None if task_ids is None else torch.tensor(task_ids, device=self.device)
        discount: Any = self.description.discount
        if ids is not None:
            discount = torch.tensor(discount, device=self.device)[ids]
        with torch.no_grad():
            task = self.networks.task(ids)
            noise = _join(noises)
            seen = obs.to(self.device, torch.float32)
            z = self.agent.encode(self.networks, seen, task, noise.shift)
            decided = self.agent.decide(
                self.networks,
                z,
                prev_mean.to(self.device),
                self._planner(method),
                noise,
                discount=discount,
                explore=False,
                task=task,
            )
        return decided.action, decided.mean

    def _planner(self, method: str) -> PlannerConfig:
        planner = self.config.planner
        return planner if method == "plan" else replace(planner, method="policy")


def _join(noises: Sequence[PlanNoise]) -> PlanNoise:
    """The noise of several environments that are planned for at once."""
    joined: dict[str, Any] = {}
    for name, dim in _ENV_DIM.items():
        parts = [getattr(noise, name) for noise in noises]
        joined[name] = None if parts[0] is None else torch.cat(parts, dim)
    return PlanNoise(heads=noises[0].heads, **joined)
