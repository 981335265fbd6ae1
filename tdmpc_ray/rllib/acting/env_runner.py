"""RLlib's env runner, with environments that may fail one by one, and initial states that never repeat."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import ray
from gymnasium import VectorizeMode
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import DictInfoToList
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.framework import get_device
from ray.rllib.utils.metrics import ENV_RESET_TIMER, ENV_STEP_TIMER

from tdmpc_ray.core.nn.precision import prepare_device
from tdmpc_ray.envs.adapter import check_ready
from tdmpc_ray.envs.faults import FAULTS
from tdmpc_ray.envs.watchdog import allow_exit
from tdmpc_ray.errors import PassingError, UserError, reason
from tdmpc_ray.rllib.acting import stop_request
from tdmpc_ray.rllib.acting.exit_reason import exit_reason_file, take_exit_reason
from tdmpc_ray.rllib.acting.fragments import is_cut
from tdmpc_ray.rllib.acting.seeding import Stream, derive, seed_globals
from tdmpc_ray.rllib.acting.task_env import TaskEnv, env_creator, env_name

logger = logging.getLogger(__name__)

T = TypeVar("T")
RESTARTS = "restarts"


class AgentEnvRunner(SingleAgentEnvRunner):
    """Seeds environments and plans by run, runner and progress, and rebuilds environments that fail.

    RLlib seeds by `seed + worker_index`, also when the environments are reset from outside: a resumed run, or
    a runner that was restarted, would begin the same episodes again, every evaluation would play the same
    ones, and runs of neighbouring seeds would share theirs. It rebuilds all environments of a runner where
    one fails.

    A remote runner that cannot be built lives on to say why: of one that dies, RLlib would not tell.

    Attributes:
        failure: why it could not be built.
        summary: beside its fragments, of the last call to sample; see `fragments.sample_for_learner`.
    """

    env: VectorEnv | None
    failure: Exception | None = None
    summary: Any = None

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        self._faults: list[str] = []
        self._sim_s = 0.0
        self._seeds_drawn = self._restarts = 0
        in_actor = ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None
        is_remote = in_actor and bool(kwargs.get("worker_index"))
        if isinstance(kwargs.get("spaces"), UserError):  # of the remote runner that RLlib asked for them
            raise kwargs["spaces"]
        # Also where it shares the process of a trial, which Tune starts again from its last checkpoint.
        self._exit_reason = exit_reason_file() if in_actor else None
        try:
            if self._exit_reason is not None:
                self._faults += take_exit_reason(self._exit_reason) if is_remote else []
                allow_exit(self._exit_reason)
            super().__init__(config=config, **kwargs)
            prepare_device(self._device, config.agent().model.tf32)
        except Exception as error:
            if not is_remote:
                raise
            logger.exception("this env runner cannot be built")
            if not isinstance(error, UserError):
                error = PassingError(f"an env runner cannot be built: {reason(error)}")
            self.failure = error

    @property
    def _device(self) -> Any:
        """RLlib's, but beside a learner in this process it acts where that one learns, and not on the CPU."""
        return self._rllib_device

    @_device.setter
    def _device(self, device: Any) -> None:
        is_beside_learner = not self.worker_index and self.config.num_learners == 0
        if is_beside_learner and self.config.num_gpus_per_learner > 0:
            device = get_device(self.config, self.config.num_gpus_per_learner)
        self._rllib_device = device

    def apply(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """RLlib's way to call a runner; one that could not be built answers everything with the reason."""
        return super().apply(func, *args, **kwargs) if self.failure is None else self.failure

    def make_module(self) -> None:
        super().make_module()
        self.module.unwrapped().draw_seed = partial(self.fresh_seed, Stream.PLANS)

    def set_state(self, state: dict[str, Any]) -> None:
        """RLlib's; `RESTARTS` keeps a runner that was started again from drawing what it drew before."""
        super().set_state(state)
        self._restarts = state.get(RESTARTS, self._restarts)

    def make_env(self) -> None:
        """Build the environments, each guarded; together, those of all runners play all tasks of a set."""
        mode = VectorizeMode(self.config.gym_env_vectorize_mode)
        if mode == VectorizeMode.VECTOR_ENTRY_POINT:  # one object, which nobody can rebuild in part
            super().make_env()
            assert self.env is not None
            try:
                spaces = self.env.single_action_space, self.env.single_observation_space
                check_ready(env_name(self.config.env), *spaces)
            except UserError:
                self.env.close()
                raise
            return
        if self.env is not None:
            self.env.close()
        self.num_envs = self.config.num_envs_per_env_runner
        contexts = [self._context(index) for index in range(self.num_envs)]
        create = env_creator(self.config.env, self.config.env_step_timeout_s, self.config.episode_length)
        vector = SyncVectorEnv if mode == VectorizeMode.SYNC else AsyncVectorEnv
        self.env = DictInfoToList(vector([partial(create, context) for context in contexts]))
        self._needs_initial_reset = True
        make_callback(
            "on_environment_created",
            callbacks_objects=self._callbacks,
            callbacks_functions=self.config.callbacks_on_environment_created,
            kwargs={
                "env_runner": self,
                "metrics_logger": self.metrics,
                "env": self.env.unwrapped,
                "env_context": contexts[0],
            },
        )

    def _context(self, index: int) -> EnvContext:
        where = {"worker_index": self.worker_index, "num_workers": self.num_workers, "vector_index": index}
        context = EnvContext(self.config.env_config, **where)
        if self.config.env is TaskEnv:
            context["slot"] = max((self.worker_index or 0) - 1, 0) * self.num_envs + index
            context["num_slots"] = max(self.num_workers or 0, 1) * self.num_envs
            context["timeout_s"] = self.config.env_step_timeout_s
        return context

    def take_faults(self) -> tuple[str, ...]:
        """What went wrong in the environments since the last call."""
        faults, self._faults = tuple(self._faults), []
        return faults

    def take_simulated(self) -> float:
        """Seconds that the environments' steps have taken since the last call."""
        seconds, self._sim_s = self._sim_s, 0.0
        return seconds

    def get_metrics(self) -> Any:
        """RLlib's; episodes that a fault has cut are no result."""
        cut = [episode for episode in self._done_episodes_for_metrics if is_cut(episode)]
        for episode in cut:
            self._done_episodes_for_metrics.remove(episode)
            self._ongoing_episodes_for_metrics.pop(episode.id_, None)
        return super().get_metrics()

    def _try_env_reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, Any]:
        vector: Any = self.env
        if seed is not None:  # in its own process, torch's stream is not the learner's
            seed_globals(self.fresh_seed(Stream.GLOBALS), with_torch=bool(self.worker_index))
            seed = self.env_seed()
        with self.metrics.log_time(ENV_RESET_TIMER):
            obs, infos = vector.reset(seed=seed, options=options)
        self._note_faults(infos)
        return obs, infos

    def _try_env_step(self, actions: Any) -> Any:
        if self.config.in_evaluation:
            stop_request.check()
        vector: Any = self.env
        started = time.perf_counter()
        with self.metrics.log_time(ENV_STEP_TIMER):
            results = vector.step(actions)  # Ray's counter of attempts costs more than it tells
        self._sim_s += time.perf_counter() - started
        self._note_faults(results[-1])
        return results

    def _note_faults(self, infos: list[dict[str, Any]]) -> None:
        for info in infos:
            self._faults += info.get(FAULTS, ())

    def fresh_seed(self, stream: Stream) -> int:
        """Another one each time, also after a restart."""
        # Both come with a checkpoint, the updates with the weights that a restarted runner gets, too.
        progress = [self.module.unwrapped().num_updates, self.num_env_steps_sampled_lifetime]
        seed = int.from_bytes(os.urandom(4)) if self.config.seed is None else self.config.seed
        parts = [int(self.config.in_evaluation), *progress, self._restarts, self._seeds_drawn]
        self._seeds_drawn += 1
        return derive(seed, self.worker_index or 0, stream, *parts)

    def env_seed(self) -> int:
        """As `fresh_seed`, of 31 bits, which every simulator takes; room for one per environment above it."""
        return self.fresh_seed(Stream.ENVIRONMENTS) >> 33

    def stop(self) -> None:
        super().stop()
        if self._exit_reason is not None:
            self._exit_reason.unlink(missing_ok=True)


def on_runners(runners: Any, call: Callable[[Any], T], *, local: bool) -> list[T]:
    """What `call` gives for each runner that lives.

    Args:
        runners: RLlib's `EnvRunnerGroup`.
        call: runs on the runner.
        local: also on the one in this process.

    Raises:
        UserError: of a call, or a runner that could not be built; RLlib would replace the runner, which would
            meet it again.
    """
    results = runners.foreach_env_runner(partial(result_or_error, call), local_env_runner=local)
    for result in results:
        if isinstance(result, UserError):
            raise result
    return results


def result_or_error(call: Callable[[Any], T], actor: Any) -> T | UserError:
    """What `call` gives for an actor, or the `UserError` that it raises: RLlib would end the actor for it."""
    try:
        return call(actor)
    except UserError as error:
        return error
