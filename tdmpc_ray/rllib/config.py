"""RLlib's builder over the settings of an agent; declares no hyperparameter twice."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from tdmpc_ray.addresses import absolute
from tdmpc_ray.core.agents import find_settings
from tdmpc_ray.core.config import PATH_SETTINGS, AgentConfig, agent_config, is_path
from tdmpc_ray.envs import task_info
from tdmpc_ray.envs.multitask import action_sizes
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.acting.connectors import AddIsFirst, AddTask, env_to_module, module_to_env
from tdmpc_ray.rllib.acting.env_runner import AgentEnvRunner
from tdmpc_ray.rllib.acting.environment_config import EnvironmentConfig
from tdmpc_ray.rllib.acting.fragments import REQUESTS_IN_FLIGHT
from tdmpc_ray.rllib.acting.module import AgentModule
from tdmpc_ray.rllib.acting.task_env import require_env
from tdmpc_ray.rllib.algorithm import AgentAlgorithm
from tdmpc_ray.rllib.config_checks import check_values, refuse_unread
from tdmpc_ray.rllib.evaluation.on_runners import evaluate
from tdmpc_ray.rllib.learning.learner import AgentLearner
from tdmpc_ray.rllib.loop.pace_settings import PaceSettings


class AgentAlgorithmConfig(PaceSettings, EnvironmentConfig):
    """Configures an `AgentAlgorithm`; an agent with a class of its own names itself there.

    Attributes:
        algorithm_class: what it configures.
    """

    algorithm_class: ClassVar[type] = AgentAlgorithm

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or self.algorithm_class)
        self.agent_name = "tdmpc2"
        self.model_size: str | int | None = None
        self.preset = "paper"
        self.agent_overrides: dict[str, Any] = {}
        self.eval_every: int | None = None
        self.total_steps: int | None = None
        self.start_from: str | None = None
        self.embed_as: str | None = None
        self.videos = False
        self.system_metrics = False
        self.steps_per_iteration = 500
        self.max_time_s_per_iteration = 10.0
        self.updates_per_call = 50
        self.asynchronous: bool | None = None
        self.sample_lead: int | None = None
        self.weights_every = 5
        self.weights_every_s: float | None = None
        self.max_env_faults = 10
        self.env_step_timeout_s: float | None = 60.0
        self.learner_timeout_s: float | None = 3600.0

        self.api_stack(enable_rl_module_and_learner=True, enable_env_runner_and_connector_v2=True)
        self.env_runner_cls = AgentEnvRunner
        self.num_env_runners = 0
        self.rollout_fragment_length = "auto"
        self.num_cpus_for_main_process = 1
        # Every iteration would wait until all runners have played what they were asked for, to gather states
        # of connectors that have none. Whoever adds connectors with a state turns it on again.
        self.merge_env_runner_states = False
        self.max_requests_in_flight_per_env_runner = REQUESTS_IN_FLIGHT
        self.delay_between_env_runner_restarts_s = 1.0
        self.num_consecutive_env_runner_failures_tolerance = 20
        self.evaluation_duration = 10
        self.evaluation_duration_unit = "episodes"
        self.evaluation_config = {"explore": False}
        self.custom_evaluation_function = evaluate

    def training(
        self,
        *,
        agent_name: str = NotProvided,
        model_size: str | int | None = NotProvided,
        preset: str = NotProvided,
        overrides: Mapping[str, Any] = NotProvided,
        episode_length: int = NotProvided,
        eval_every: int | None = NotProvided,
        total_steps: int | None = NotProvided,
        steps_per_iteration: int = NotProvided,
        max_time_s_per_iteration: float = NotProvided,
        updates_per_call: int = NotProvided,
        asynchronous: bool | None = NotProvided,
        sample_lead: int | None = NotProvided,
        weights_every: int = NotProvided,
        weights_every_s: float | None = NotProvided,
        start_from: str | Path | None = NotProvided,
        embed_as: str | None = NotProvided,
        videos: bool = NotProvided,
        system_metrics: bool = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set what is learned and how.

        Args:
            agent_name: see `core.agents.find_agent`.
            model_size: a key of the agent's sizes; None: its default.
            preset: a key of its presets.
            overrides: dotted keys to values or Tune search spaces, `{"update.lr": 1e-3}`; added to earlier
                ones.
            episode_length: agent steps that no episode outlasts, of an environment that the catalog does not
                know; sets the discount and the number of random steps.
            eval_every: evaluate every so many agent steps; None leaves it to RLlib's `evaluation_interval`.
            total_steps: agent steps of the whole run: the last iteration ends there, evaluated.
            steps_per_iteration: agent steps per `train()`, at most; these three count updates with a dataset.
            max_time_s_per_iteration: seconds after which a `train()` returns, where nothing hinders it.
            updates_per_call: gradient steps per call of the learner, at most.
            asynchronous: sample and learn at once; False: in turns, which is reproducible; None: at once
                where there are remote env runners.
            sample_lead: agent steps that asynchronous sampling may be ahead of the updates; None: what keeps
                every runner busy, but no more than 2,000, or 5 % of the steps so far.
            weights_every: updates after which asynchronous runners are sent new weights.
            weights_every_s: seconds between, too; None: copies take a twentieth of the learner's time.
            start_from: a checkpoint or a run's folder, by path or address, whose networks to begin with: they
                have to fit, but a termination head may be missing. All else begins anew; no step is random.
            embed_as: the task whose embedding a new one begins with, where the networks of `start_from` have
                learned several: one of theirs, `mean`, or `best`, which foresees the first episodes of a run
                of one task best; None: its own.
            videos: film an episode of each task into the checkpoint of the last step.
            system_metrics: report what the main process's node and GPUs do, energy included.
        """
        given = _given(locals())
        super().training(**kwargs)
        if overrides is not NotProvided:
            self.agent_overrides = {**self.agent_overrides, **_absolute(given.pop("overrides"))}
        if isinstance(start_from, (str, Path)):
            given["start_from"] = absolute(start_from)
        for name, value in given.items():
            setattr(self, name, value)
        return self

    def fault_tolerance(
        self,
        *,
        max_env_faults: int = NotProvided,
        env_step_timeout_s: float | None = NotProvided,
        learner_timeout_s: float | None = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set what may go wrong.

        Args:
            max_env_faults: faults of environments (see `envs.faults`) within 1,000 agent steps that a run
                survives; 0: none.
            env_step_timeout_s: seconds that a step or a reset of an environment may take; building it and its
                first reset, five times as long; None: any time.
            learner_timeout_s: seconds in which a learner in a process of its own has to answer a call, of
                `updates_per_call` updates at most, compiled at the first; None: any time.
        """
        given = _given(locals())
        super().fault_tolerance(**kwargs)
        for name, value in given.items():
            setattr(self, name, value)
        return self

    def agent(self) -> AgentConfig:
        """The resolved hyperparameters.

        Raises:
            UserError: an unknown key or a value out of its range.
        """
        by_task: dict[str, Any] = {}
        if (info := self.info) is not None:
            by_task = {"model.episodic": True} if info.can_terminate else {}
            tasks = [(task_info(name).suite, name) for name in info.tasks or (info.name,)]
            obs = self.env_config.get("obs", "state")
            by_task |= find_settings(self.agent_name).of_tasks(tasks, obs, self.preset)
        return agent_config(
            self.model_size, self.preset, {**by_task, **self.agent_overrides}, self.agent_name
        )

    @property
    def num_seed_steps(self) -> int:
        """Random agent steps before the first update."""
        assert self.episode_length is not None  # validated
        return self.agent().data.num_seed_steps(self.episode_length, max(len(self.tasks), 1))

    def validate(self) -> None:
        refuse_unread(self)
        super().validate()
        self.agent()
        check_values(self)
        if self.num_learners == 0 and vars(self)["num_cpus_per_learner"] == "auto":
            # The learner is the main process; RLlib would raise `num_cpus_for_main_process` to a whole CPU.
            self.learners(num_cpus_per_learner=0)
        if self.eval_every is not None and not self.in_evaluation:
            # RLlib builds evaluation runners only where an interval is set, and counts it in iterations.
            self.evaluation_interval = sys.maxsize

    def build_algo(self, *args: Any, **kwargs: Any) -> Any:
        """RLlib's; refuses an environment before Ray starts, where it can be built here.

        Raises:
            UserError: the environment is refused, or a value is.
        """
        require_env(self)
        return super().build_algo(*args, **kwargs)

    def offline_data(self, *, input_: Any = NotProvided, **kwargs: Any) -> Self:
        """Learn from a dataset alone.

        Args:
            input_: its folder, see docs/datasets.md. Ray Data is not used: sequences are drawn at random from
                files that are mapped into memory, which streams of blocks cannot.
            kwargs: refused; they are Ray Data's.
        """
        if kwargs:
            raise UserError(f"offline_data({next(iter(kwargs))}=...) is Ray Data's, which is not used")
        if input_ in (NotProvided, "sampler"):  # RLlib's word for environments
            return self
        return self.training(overrides={"data.dataset": str(input_)})

    @property
    def has_dataset(self) -> bool:
        """Whether the run learns from a dataset alone."""
        return bool(self.agent_overrides.get("data.dataset"))

    def build_env_to_module_connector(self, env: Any = None, spaces: Any = None, device: Any = None) -> Any:
        pipeline = env_to_module(self, super().build_env_to_module_connector(env, spaces, device), device)
        pipeline.append(AddIsFirst(device=device))
        if self.info is not None and self.info.tasks:
            pipeline.append(AddTask(device=device))
        return pipeline

    def build_module_to_env_connector(self, env: Any = None, spaces: Any = None) -> Any:
        return module_to_env(self, super().build_module_to_env_connector(env, spaces))

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=AgentModule)

    def get_default_learner_class(self) -> type:
        return AgentLearner

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        agent, tasks = self.agent(), self.tasks
        discounts = [agent.update.discount(task.episode_length) for task in tasks]
        own = {
            "agent": agent.to_dict(),
            "discount": discounts or agent.update.discount(self.episode_length or 1000),
            "action_dims": action_sizes(self.info) if self.info is not None and tasks else None,
            "seed": self.seed,
            "task": self.task,
            "obs": self.env_config.get("obs", "state"),
        }
        return super()._model_config_auto_includes | own


def _absolute(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with paths as they are meant here: the learner may run in another folder."""
    paths = {key: overrides[key] for key in PATH_SETTINGS if isinstance(overrides.get(key), str)}
    return {**overrides, **{key: absolute(path) for key, path in paths.items() if is_path(path)}}


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    """Of a method's arguments, those that the caller has set and that are ours."""
    others = ("self", "kwargs", "__class__")
    return {k: v for k, v in arguments.items() if k not in others and v is not NotProvided}


AgentAlgorithm.new_config = staticmethod(lambda: AgentAlgorithmConfig())
