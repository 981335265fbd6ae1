"""The RLModule: an agent's networks, and the plan of each environment's last step."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from tdmpc_ray.core.agents import find_agent
from tdmpc_ray.core.batch import ImageAndVector, Observation
from tdmpc_ray.core.cloning import CLONE_STD
from tdmpc_ray.core.config import AgentConfig
from tdmpc_ray.core.nn.kernels import keep_freed_memory
from tdmpc_ray.core.nn.readback import read_arrays
from tdmpc_ray.core.planners import Plan, PlanNoise
from tdmpc_ray.envs.images import STACK_SHAPES
from tdmpc_ray.envs.spaces import Shapes
from tdmpc_ray.errors import UserError
from tdmpc_ray.observations import parts_of
from tdmpc_ray.rllib.acting.plan_diagnostics import PlanDiagnostics
from tdmpc_ray.rllib.acting.seeding import Stream, derive

IS_FIRST = "is_first"
BEGINNING = "beginning"
TASK = "task"
EXTRA = "extra"  # what the agent keeps with a step


class AgentModule(TorchRLModule, InferenceOnlyAPI):
    """Acts as its agent decides; learned by `AgentLearner` through its `networks`.

    `model_config` holds `agent` (an `AgentConfig` as a dict), `discount` and `seed`; for a set of tasks a
    discount for each, and `action_dims`.

    Attributes:
        cfg: the agent's settings.
        agent: see `core.agents`.
        networks: of the agent.
        draw_seed: where its first plan takes the seed of its noise from; an env runner's own.
    """

    grad_updates: Tensor
    discounts: Tensor  # of a set's tasks, (tasks,)

    def setup(self) -> None:
        keep_freed_memory()
        # RLlib makes PyTorch deterministic in seeded runs without a GPU; it then writes NaN into all memory
        # that it reserves: a third more time for a plan at size 5. Here all is written before it is read.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        self.cfg = AgentConfig.from_dict(self.model_config["agent"])
        self.agent = find_agent(self.cfg.algorithm)
        self.discount: float | list[float] = self.model_config["discount"]
        require_spaces(self.observation_space, self.action_space)
        shapes = Shapes.of(self.observation_space, self.action_space)
        self.networks = self.agent.make_networks(
            shapes.obs_shape,
            shapes.action_dim,
            self.cfg.model,
            action_dims=self.model_config.get("action_dims"),
            vector_dim=shapes.vector_dim,
            learns=not self.inference_only,
        ).train(not self.inference_only)
        # Travels with the weights: a runner acts at random until it has seen an update, also after a restart.
        self.register_buffer("grad_updates", torch.zeros((), dtype=torch.int64))
        self.num_updates = 0  # the same on the host, where reading it waits for no GPU
        if isinstance(self.discount, list):
            self.register_buffer("discounts", torch.tensor(self.discount), persistent=False)
        self.diagnostics = PlanDiagnostics(self.discount)
        self._prev_mean: Tensor | None = None
        self._decided: Plan | None = None
        self._generator: torch.Generator | None = None
        self.draw_seed: Callable[[], int] = self._own_seed

    def get_non_inference_attributes(self) -> list[str]:
        return [f"networks.{part}" for part in self.networks.learning_only]

    def train(self, mode: bool = True) -> AgentModule:
        # RLlib toggles at every environment step; walking all submodules would cost a third of a step. Where
        # nothing is learned they are in evaluation mode for good.
        if self.inference_only:
            self.training = mode
        return self if self.training == mode else super().train(mode)

    def get_state(
        self, components: Any = None, *, not_components: Any = None, inference_only: bool = False, **_: Any
    ) -> dict[str, Any]:
        """RLlib's, by one copy from a GPU.

        Args:
            inference_only: without what only updates need.
        """
        left_out = self.get_non_inference_attributes() if inference_only else []
        state = self.state_dict()
        return read_arrays({k: x for k, x in state.items() if not k.startswith(tuple(left_out))})

    def set_state(self, state: Any) -> None:
        super().set_state(state)
        self.num_updates = int(self.grad_updates)

    def count_updates(self, num: int) -> None:
        """After `num` gradient updates."""
        self.grad_updates += num
        self.num_updates += num

    def share_networks(self, other: AgentModule) -> None:
        """Act with the very parameters of `other`, so that its updates need not be copied."""
        self.num_updates = other.num_updates
        if self.grad_updates is other.grad_updates:
            return
        theirs = {**dict(other.named_parameters()), **dict(other.named_buffers())}
        for prefix, module in self.named_modules():
            for held in (module._parameters, module._buffers):
                for name in held:
                    held[name] = theirs[f"{prefix}.{name}" if prefix else name]

    def act(
        self,
        obs: Observation,
        is_first: Tensor,
        task_id: Tensor | None = None,
        *,
        explore: bool,
        beginning: Sequence[str | None] = (),
    ) -> Tensor:
        """Choose actions, and remember each environment's plan for its next step.

        Args:
            obs: (N, O), (N, 9, 64, 64), or both.
            is_first: the environments that have just been reset, (N,) bool.
            task_id: of each environment (N,), for a set of tasks.
            explore: act with the planner's noise.
            beginning: names of the episodes that begin, None for the others; N or none, for the diagnostics.

        Returns:
            Actions in [-1, 1], (N, A).
        """
        num_envs, device = len(is_first), is_first.device
        # Counted by updates, because these come with the weights: to every runner, and from a checkpoint.
        planner = self.cfg.planner.at(self.num_updates / self.cfg.data.utd_ratio)
        generator = self._seeded_generator(device)
        # On the CPU a small policy takes as long as autograd's bookkeeping; untried with CUDA graphs. Nothing
        # can be differentiated within it.
        without_autograd = device.type == "cpu" and planner.method != "gradient"
        with torch.no_grad(), torch.inference_mode(without_autograd):
            task = self.networks.task(task_id)
            discount: Any = self.discount if task_id is None else self.discounts[task_id]
            noise = PlanNoise.sample(self.networks, planner, num_envs, generator)
            z = self.agent.encode(self.networks, obs, task, noise.shift)
            shape = (num_envs, self.cfg.planner.horizon, self.networks.action_dim)
            prev_mean = self._prev_mean
            if prev_mean is None or prev_mean.shape != shape:
                prev_mean = torch.zeros(shape, device=device)
            prev_mean = prev_mean.masked_fill(is_first.view(-1, 1, 1), 0.0)
            decided = self.agent.decide(
                self.networks,
                z,
                prev_mean,
                planner,
                noise,
                discount=discount,
                explore=explore,
                task=task,
            )
            if explore and self.diagnostics.is_due():
                self.diagnostics.look(decided, self.agent.policy_mean(self.networks, z, task))
        if any(beginning):
            self.diagnostics.begin(decided, beginning)
        self._prev_mean = decided.mean
        self._decided = decided
        return decided.action

    def seed(self, seed: int) -> None:
        """Begin the planner's random stream anew."""
        self._generator = torch.Generator(self.networks.device).manual_seed(seed)

    def _seeded_generator(self, device: torch.device) -> torch.Generator:
        """The planner's own random stream, which begins when the weights and the run's progress have come."""
        if self._generator is None:
            self._generator = torch.Generator(device).manual_seed(self.draw_seed())
        return self._generator

    def _own_seed(self) -> int:
        seed = self.model_config["seed"]
        seed = int.from_bytes(os.urandom(4)) if seed is None else seed
        return derive(seed, 0, Stream.LOADED_PLANS, self.num_updates)

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        actions = self.act(_observation(batch), _is_first(batch), batch.get(TASK), explore=False)
        return {Columns.ACTIONS: actions}

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        if self.num_updates == 0 and self.cfg.data.cloning:
            return self._told(self._act_as_clone(batch))
        if self.num_updates == 0:
            seen, _ = parts_of(batch[Columns.OBS])
            shape = (len(seen), self.networks.action_dim)
            uniform = torch.rand(shape, generator=self._seeded_generator(seen.device), device=seen.device)
            mask = self.networks.action_masks[batch[TASK]] if TASK in batch else 1.0
            return self._told((uniform * 2 - 1) * mask)
        beginning = batch.get(BEGINNING, ())
        task = batch.get(TASK)
        actions = self.act(_observation(batch), _is_first(batch), task, explore=True, beginning=beginning)
        return self._told(actions, self._decided)

    def _told(self, actions: Tensor, plan: Plan | None = None) -> dict[str, Any]:
        """Actions, with what the agent keeps of the plans that chose them."""
        if not self.agent.extra_dim(self.networks.action_dim):
            return {Columns.ACTIONS: actions}
        extra = self.agent.extra_unplanned(actions) if plan is None else self.agent.extra_of(plan)
        return {Columns.ACTIONS: actions, EXTRA: extra}

    @torch.no_grad()
    def _act_as_clone(self, batch: dict[str, Any]) -> Tensor:
        """What the policy that imitates the demonstrations does, with a little noise, (N, A)."""
        task = self.networks.task(batch.get(TASK))
        mean = self.agent.policy_mean(
            self.networks, self.agent.encode(self.networks, _observation(batch), task), task
        )
        generator = self._seeded_generator(mean.device)
        eps = torch.randn(mean.shape, generator=generator, device=mean.device)
        mask = self.networks.action_masks[batch[TASK]] if TASK in batch else 1.0
        return (mean + CLONE_STD * eps).clamp(-1, 1) * mask

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        raise NotImplementedError("AgentLearner updates `networks` through the agent's updater")


def require_spaces(observations: Any, actions: Any) -> None:
    """Refuse spaces that no environment of `tdmpc_ray.envs` has.

    Raises:
        UserError: names the space.
    """
    seen, beside = parts_of(observations)
    is_seen = _is_stack(seen) if beside is not None else _is_vector(seen) or _is_stack(seen)
    if not is_seen or (beside is not None and not _is_vector(beside)):
        raise UserError(f"an agent needs a Box vector of floats as its observation space, not {observations}")
    if not _is_vector(actions):
        raise UserError(f"an agent needs a Box vector of floats as its action space, not {actions}")


def _is_vector(space: Any) -> bool:
    is_box = isinstance(space, gymnasium.spaces.Box)
    return is_box and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating)


def _is_stack(space: Any) -> bool:
    return space.shape in STACK_SHAPES and space.dtype == np.uint8


def _observation(batch: dict[str, Any]) -> Observation:
    seen, vector = parts_of(batch[Columns.OBS])
    return seen if vector is None else ImageAndVector(seen, vector)


def _is_first(batch: dict[str, Any]) -> Tensor:
    if IS_FIRST not in batch:
        raise UserError(
            f"the module needs '{IS_FIRST}' (N,), True where an episode begins, beside 'obs': "
            "or load the checkpoint with tdmpc_ray.rllib.load_agent"
        )
    return batch[IS_FIRST]
