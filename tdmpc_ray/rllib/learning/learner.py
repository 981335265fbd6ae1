"""The learner: owns the replay and runs several updates per call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModule
from torch import Tensor

from tdmpc_ray.core.agents.agent import Costs, Networks
from tdmpc_ray.core.nn.precision import prepare_device
from tdmpc_ray.core.parallel import Replicas
from tdmpc_ray.datasets.chunk_store import CannotWrite, ChunkStore
from tdmpc_ray.errors import UserError, reason
from tdmpc_ray.rllib.acting.fragments import Fragment
from tdmpc_ray.rllib.acting.module import AgentModule
from tdmpc_ray.rllib.learning.cloning import CloningLoop
from tdmpc_ray.rllib.learning.embedding_choice import EmbeddingChoice
from tdmpc_ray.rllib.learning.random_streams import RandomStreams
from tdmpc_ray.rllib.learning.sources import open_sources
from tdmpc_ray.rllib.learning.start_networks import BEST, StartNetworks, state_for
from tdmpc_ray.rllib.learning.updates import Losses, UpdateLoop
from tdmpc_ray.rllib.learning.work import Work


class AgentLearner(TorchLearner):
    """Takes fragments of episodes in, and steps the agent's networks on sequences from its own replay.

    Several learners have a part of the replay and of each batch each, and their networks stay equal.
    """

    def build(self) -> None:
        super().build()
        module: AgentModule = self.module[DEFAULT_MODULE_ID].unwrapped()
        agent, model = module.cfg, module.networks
        self._rl_module, self._agent = module, agent
        prepare_device(self._device, agent.model.tf32)
        size = max(self.config.num_learners, 1)
        self._replicas = Replicas() if size > 1 else None
        if self._replicas is not None:  # before all that may fail in one learner and leave the others waiting
            self._replicas.equalize(module.state_dict().values())
        self._streams = RandomStreams(self.config.seed, self._device, self._replicas)
        batch_size = agent.update.batch_size // size
        self._seed_steps = self.config.num_seed_steps // size
        rank = 0 if self._replicas is None else self._replicas.rank
        self.replay: Any  # a dataset takes nothing in
        sources = open_sources(self.config, module, rank, batch_size)
        self.replay, self._saved_replay, demonstrations, self._held_out = sources
        self._shown_left_out = demonstrations.left_out if demonstrations is not None else 0
        names = [name.removeprefix(f"{DEFAULT_MODULE_ID}_") for name in self._named_optimizers]
        optimizers = {name: self.get_optimizer(optimizer_name=name) for name in names}
        self._updater = module.agent.make_updater(
            model, agent.update, module.discount, optimizers, self._replicas
        )
        if hasattr(self._updater, "policy_begins"):
            self._updater.policy_begins = round(self.config.num_seed_steps * agent.data.utd_ratio)
        self._loop = UpdateLoop(
            module, self._updater, self.replay, demonstrations, self._streams, batch_size, self._replicas
        )
        self._cloning = None
        if agent.data.cloning and demonstrations is not None:
            self._cloning = CloningLoop(module, demonstrations, self._streams, batch_size, self._replicas)
        self._unsaved = ""
        self._choice: EmbeddingChoice | None = None
        self._teacher: Networks | None = None

    def _make_modules_ddp_if_necessary(self) -> None:
        """Nothing: RLlib's wrapper does not reduce gradients here, and says nothing; the updater does."""

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        module: AgentModule = self.module[module_id].unwrapped()
        for name, optimizer in module.agent.make_optimizers(module.networks, module.cfg.update).items():
            params = [p for group in optimizer.param_groups for p in group["params"]]
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=optimizer,
                params=params,
                lr_or_lr_schedule=None,  # RLlib's would give the encoder the same rate as the rest
            )

    def ingest(self, batches: Sequence[tuple[Any, int]]) -> tuple[list[int], int, int]:
        """Write fragments into the replay.

        Args:
            batches: lists of `Fragment`, or Ray references to such lists, each with its number of steps.

        Returns:
            Transitions written, of each task; batches lost because the runner that held them has died; their
            steps.

        Raises:
            UserError: an environment broke its contract.
        """
        added, lost, lost_steps = [0] * max(self.replay.num_tasks, 1), 0, 0
        for batch, steps in batches:
            if isinstance(batch, ray.ObjectRef):
                try:
                    batch = ray.get(batch)
                except (ray.exceptions.ObjectLostError, ray.exceptions.RayActorError):
                    lost, lost_steps = lost + 1, lost_steps + steps
                    continue
            for fragment in batch:
                if fragment.terminated and not self._agent.model.episodic:
                    self._refuse_termination(fragment)
                if self._held_out is None or not self._held_out.take(fragment):
                    self.replay.add(**fragment._asdict())
                added[fragment.task if self.replay.num_tasks else 0] += len(fragment.action)
        return added, lost, lost_steps

    def work(
        self, batches: Sequence[tuple[Any, int]], num_updates: int, with_weights: bool, read: bool = False
    ) -> Work:
        """Take fragments in (see `ingest`), then learn (see `UpdateLoop`).

        Where another learner has failed, this one learns nothing, instead of waiting for it.

        Args:
            batches: may be empty.
            num_updates: may be 0.
            with_weights: whether the first learner leaves the new weights in the object store.
            read: report all losses so far, which waits for a GPU; otherwise they come with a later call.
        """
        started = time.perf_counter()
        failure = None
        try:
            added, lost, lost_steps = self.ingest(batches)
            if num_updates:
                self.replay.require_starts()
        except UserError as error:
            failure = error
        if num_updates and self._replicas and not self._replicas.agree(failure is None, self._device):
            num_updates = 0
        if failure is not None:
            raise failure
        notes: tuple[str, ...] = ()
        if num_updates:
            notes = self._choose_embedding()
            self._loop.run(num_updates)
        losses, validation = Losses({}, 0, 0), {}
        if read or with_weights or self._loop.is_due:
            losses = self._loop.read()
            if self._held_out is not None and losses.num_updates:
                validation = self._held_out.losses(self._updater, self.replay)
        weights, weights_s = None, 0.0
        if with_weights and (self._replicas is None or self._replicas.rank == 0):
            began = time.perf_counter()
            weights = ray.put(self.get_state(components=COMPONENT_RL_MODULE, inference_only=True))
            weights_s = time.perf_counter() - began
        is_ready = self.replay.num_valid > 0 or self.replay.transitions_added >= self._seed_steps
        seconds = time.perf_counter() - started
        did = (sum(added), lost, lost_steps, num_updates, losses, seconds, weights, weights_s)
        left_out = self.replay.left_out + self._shown_left_out
        return Work(*did, is_ready, left_out, tuple(added), notes, validation, self._loop.take_waited_s())

    def _choose_embedding(self) -> tuple[str, ...]:
        choice, self._choice = self._choice, None
        line = choice.make(self._loop.draw) if choice is not None else ""
        return (line,) if line else ()

    @property
    def _is_told_of_terminations(self) -> bool:
        """Whether the user has said that the task can end, or that it does not matter."""
        return "model.episodic" in self.config.agent_overrides

    def _refuse_termination(self, fragment: Fragment) -> None:
        """The planner would never learn that the task can end; whoever wants that says so."""
        if self._is_told_of_terminations:
            return
        info, task, declared = self.config.info, "the environment", ""
        if info is not None:
            task = f"task '{info.tasks[fragment.task] if info.tasks else info.name}'"
            declared = "register it with can_terminate=True, or "
        step = fragment.start + len(fragment.action)
        raise UserError(
            f"{task} ended in a terminal state at step {step} of an episode, and nothing said that it can: "
            f"{declared}set model.episodic to true (or to false, to plan without foreseeing it)"
        )

    def learn(self, num_updates: int) -> Losses:
        """Take `num_updates` gradient steps, and read what they report."""
        self._loop.run(num_updates)
        return self._loop.read()

    def num_cloning_updates(self) -> int:
        """Steps of imitation before the run's first one."""
        return self._cloning.total if self._cloning else 0

    def clone(self, done: int, num: int) -> dict[str, tuple[float, int]]:
        """Take steps of imitation, see `CloningLoop.run`."""
        return self._cloning.run(done, num) if self._cloning else {}

    def load_networks(self, start: StartNetworks) -> int:
        """Take networks over, with those that only updates need.

        Returns:
            How many updates have made them.

        Raises:
            UserError: they do not fit.
        """
        self._rl_module.set_state(state_for(start, self._rl_module.networks, self.config))
        if self.config.embed_as == BEST:
            self._choice = EmbeddingChoice(start, self._rl_module, self.config, self._replicas)
        return self._rl_module.num_updates

    def task_vectors(self) -> Tensor | None:
        """See `Networks.task_vectors`; on the host."""
        vectors = self._rl_module.networks.task_vectors()
        return None if vectors is None else vectors.cpu()

    def set_teacher(self, teacher: Networks) -> None:
        """Take a teacher, see `read_teacher`."""
        self._teacher = self._updater.teacher = teacher.to(self._device)  # type: ignore[attr-defined]

    def model_cost(self) -> tuple[int, Costs]:
        """Trainable parameters, and what the agent's decisions and updates cost."""
        module = self._rl_module
        return module.networks.num_params(), module.agent.costs(module.networks, module.cfg, self._teacher)

    def compute_loss_for_module(self, **kwargs: Any) -> Any:
        raise NotImplementedError("losses and optimizer steps are the agent's updater's: call learn()")

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        if components is None:
            state["updater"] = {name: value.cpu() for name, value in self._updater.state().items()}
            if self._cloning is not None and self._rl_module.num_updates == 0:
                state["cloning"] = self._cloning.state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        for name, value in self._updater.state().items():
            if name in state.get("updater", {}):
                value.copy_(state["updater"][name])
        if self._cloning is not None and "cloning" in state:
            self._cloning.restore(state["cloning"])

    def _set_optimizer_state(self, state: dict[str, Any]) -> None:
        """RLlib's, but the rates stay this run's: PBT goes on from a trial with other ones."""
        own = {
            name: [
                {key: value for key, value in group.items() if key != "params"} for group in o.param_groups
            ]
            for name, o in self._named_optimizers.items()
        }
        super()._set_optimizer_state(state)
        for name, groups in own.items():
            for group, values in zip(self._named_optimizers[name].param_groups, groups, strict=True):
                group.update(values)

    def save_to_path(self, path: Any = None, **kwargs: Any) -> str:
        """RLlib's. Its failure waits for `save_replay`: RLlib would end this process for it."""
        self._unsaved = ""
        try:
            return super().save_to_path(path, **kwargs)
        except OSError as error:
            self._unsaved = f"cannot write to {path}: {reason(error)}"
            return str(path)

    def save_replay(self, store: ChunkStore) -> dict[str, Any]:
        """Write to `store` what has changed in the replay, and this learner's random streams.

        Returns:
            The manifest that `load_replay` takes.

        Raises:
            CannotWrite: the replay, or before it the networks; says why.
        """
        if self._unsaved:
            raise CannotWrite(self._unsaved)
        saved = self._saved_replay.save(store, self._streams.get_state())
        return saved if self._held_out is None else {**saved, **self._held_out.save(store)}

    def load_replay(self, store: ChunkStore, manifest: dict[str, Any], salvage: bool = False) -> list[str]:
        """Restore what `save_replay` wrote.

        Args:
            store: where it wrote it.
            manifest: what it returned.
            salvage: leave out the rows of chunks that are missing or damaged.

        Returns:
            What was left out, a line for each chunk.

        Raises:
            DamagedCheckpoint: a chunk is missing or damaged.
            UserError: it is of a run with other settings.
        """
        streams, left_out = self._saved_replay.load(store, manifest, salvage)
        self._streams.set_state(streams)
        if self._held_out is not None:
            left_out += self._held_out.load(store, manifest, salvage)
        return left_out

    @classmethod
    def rl_module_required_apis(cls) -> list[type]:
        return []

    def rl_module_is_compatible(self, module: RLModule) -> bool:
        return isinstance(module.unwrapped(), AgentModule)
