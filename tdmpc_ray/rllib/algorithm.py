"""An agent of `core.agents` as an RLlib algorithm: a loop, with evaluation, checkpoints and reports."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EVALUATION_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune.result import DONE, TRIAL_INFO

from tdmpc_ray.core.nn.threads import limit_threads
from tdmpc_ray.envs import task_info
from tdmpc_ray.errors import PassingError, UserError
from tdmpc_ray.rllib.acting.env_runner import RESTARTS
from tdmpc_ray.rllib.acting.stop_request import EvaluationStopped
from tdmpc_ray.rllib.checkpoints.algorithm_checkpoint import DurableAlgorithm
from tdmpc_ray.rllib.evaluation.during_training import Evaluator
from tdmpc_ray.rllib.evaluation.of_checkpoints import film_episode
from tdmpc_ray.rllib.evaluation.video import require_film
from tdmpc_ray.rllib.learning.learner import AgentLearner
from tdmpc_ray.rllib.learning.replay_memory import with_memory
from tdmpc_ray.rllib.learning.start_networks import check_networks, read_networks
from tdmpc_ray.rllib.learning.teacher import read_teacher
from tdmpc_ray.rllib.loop.asynchronous import AsyncLoop
from tdmpc_ray.rllib.loop.cloning import CloningPhase
from tdmpc_ray.rllib.loop.in_turns import TurnLoop
from tdmpc_ray.rllib.loop.learner_link import LearnerLink
from tdmpc_ray.rllib.loop.offline import OfflineLoop
from tdmpc_ray.rllib.loop.progress import Progress
from tdmpc_ray.rllib.loop.recovery import causes_raised, give_state, take_back
from tdmpc_ray.rllib.metrics.activity import doing
from tdmpc_ray.rllib.metrics.report import EVALUATION, Reporter
from tdmpc_ray.rllib.metrics.system_metrics import SystemMetrics
from tdmpc_ray.rllib.metrics.task_map import task_map

logger = logging.getLogger(__name__)

VIDEO_FOLDER = "videos"
_STATE = "tdmpc_ray"  # our part of RLlib's state


class AgentAlgorithm(DurableAlgorithm):
    """Planning env runners, and a replay inside the learner.

    Attributes:
        new_config: makes a config that builds it; a function, as Ray walks through the classes of a class.
        progress: counters and metrics.
        evaluator: evaluates by agent steps.
    """

    new_config: ClassVar[Callable[[], Any]]

    @classmethod
    def get_default_config(cls) -> Any:
        return cls.new_config()

    def __init__(self, config: Any = None, *args: Any, **kwargs: Any) -> None:
        # Which trial of Tune's this is: RLlib drops it, and calls every trial "default".
        about = config.get(TRIAL_INFO) if isinstance(config, Mapping) else None
        super().__init__(config, *args, **kwargs)
        self._trial_info = about

    @classmethod
    def default_resource_request(cls, config: Any) -> Any:
        """RLlib's, and the replay's memory."""
        resolved = cls.get_default_config().update_from_dict(config)
        return super().default_resource_request(with_memory(resolved))

    def setup(self, config: Any) -> None:
        limit_threads(int(config.num_cpus_for_main_process))
        self._require_films(config)
        start = None if config.start_from is None else read_networks(config.start_from)
        notes = check_networks(start, [config]) if start else []
        teacher = read_teacher(config)
        with causes_raised():
            super().setup(config)
        if config.agent().model.episodic and "model.episodic" not in config.agent_overrides:
            logger.info("%s may terminate: the model learns to foresee it (model.episodic)", config.task)
        self._reported = (0, 0)  # steps and updates; more come while a checkpoint waits for what is under way
        self._lost_in_a_row = 0  # fragments, since the last step
        self.latest: dict[str, float] = {}  # evaluation; in every result, for Tune's schedulers
        self.evaluations: dict[int, dict[str, float]] = {}  # all, by agent steps of their networks
        self.link = LearnerLink(self.learner_group, config.learner_timeout_s)
        if teacher is not None:
            self.link.call(AgentLearner.set_teacher, teacher=teacher)
        system = SystemMetrics() if config.system_metrics else None
        params, costs = self.link.call(AgentLearner.model_cost)
        reporter = Reporter(
            params,
            costs.per_update,
            system,
            flops_per_plan=0 if config.has_dataset else costs.per_plan,
            seed_steps=config.num_seed_steps,
        )
        self.progress = Progress(config, reporter, self.metrics)
        self.progress.notes += notes
        self.evaluator = Evaluator(self)
        self._loop = self._make_loop(config)
        self._cloning = CloningPhase(config, self.progress, self.link, self._sync_weights)
        if start:
            self.progress.updates_before = self.link.call(AgentLearner.load_networks, start=start)
            self._sync_weights()

    def _make_loop(self, config: Any) -> AsyncLoop | TurnLoop | OfflineLoop:
        if config.has_dataset:
            return OfflineLoop(config, self.progress, self.link, self._sync_weights)
        parts = (config, self.progress, self.link, self.env_runner_group)
        if config.is_asynchronous:
            return AsyncLoop(*parts)
        return TurnLoop(
            *parts,
            self.metrics,
            sync_weights=self._sync_weights,
            owes_evaluation=lambda: self.at_end and self.evaluator.is_due(),
        )

    @property
    def env_steps(self) -> int:
        """Agent steps whose transitions are in the replay."""
        return self.progress.pace.env_steps

    @property
    def grad_updates(self) -> int:
        """Gradient updates taken."""
        return self.progress.pace.grad_updates

    @property
    def clock(self) -> int:
        """What evaluations and the run's length are counted in: agent steps; offline, updates."""
        return self.grad_updates if self.config.has_dataset else self.env_steps

    @property
    def at_end(self) -> bool:
        """Whether all of `total_steps` are taken."""
        total = self.config.total_steps
        return total is not None and self.clock >= total

    def training_step(self) -> None:
        """Clone, or collect, store and update, until this iteration's share of steps or of time is done."""
        if not self._cloning.run():
            self._loop.run()

    def _sync_weights(self) -> None:
        if self.config.shares_networks:
            learning = self.learner_group._learner.module[DEFAULT_MODULE_ID].unwrapped()
            self.env_runner.module.unwrapped().share_networks(learning)
            return
        self.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.learner_group, inference_only=True
        )

    def compute_single_action(self, *args: Any, **kwargs: Any) -> Any:
        """RLlib's old interface, which has no place for the plan that one step hands on to the next.

        Raises:
            UserError: names the way.
        """
        raise UserError(
            "act with tdmpc_ray.rllib.load_agent(CHECKPOINT).act(obs, is_first): it keeps each "
            "episode's plan from step to step, for which compute_single_action has no place"
        )

    compute_actions = compute_single_action

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Take restarted runners back, with the learner's weights; waits for none."""
        restored = take_back(env_runner_group)
        if restored:
            counters = self.progress.counters
            counters.runner_restarts += len(restored)
            kind = "evaluation" if env_runner_group is self.eval_env_runner_group else "env"
            self.progress.notes += [f"{kind} runner {runner} had died and is back" for runner in restored]
            self.link.settle()
            learner = self.learner_group.get_state(
                components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}", inference_only=True
            )[COMPONENT_LEARNER]
            # Both keep a runner from playing its first episodes again (`fresh_seed`).
            progress = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.env_steps, RESTARTS: counters.runner_restarts}
            give_state(env_runner_group, restored, {**learner, **progress})
        return restored

    def step(self) -> dict[str, Any]:
        """One `train()`: RLlib's iteration, then an evaluation where one is due by agent steps."""
        progress, started = self.progress, time.perf_counter()
        steps, lost = self.env_steps, progress.counters.lost_fragments
        result = super().step()
        self._refuse_to_go_round(self.env_steps > steps, progress.counters.lost_fragments - lost)
        result.update(self.evaluator.run())
        evaluation, self.evaluator.last = self.evaluator.last, {}
        if evaluation:
            evaluated = result.setdefault(EVALUATION_RESULTS, {}).setdefault(ENV_RUNNER_RESULTS, {})
            evaluated.update(evaluation)
        progress.reporter.wall_s += time.perf_counter() - started
        counters, report, notes = progress.report(
            result, evaluation, self.env_steps - self._reported[0], self.grad_updates - self._reported[1]
        )
        self._reported = self.env_steps, self.grad_updates
        if evaluation and len(self.config.tasks) > 1:
            report |= self._task_map()
        self.latest |= {name: value for name, value in report.items() if name.startswith("eval/")}
        if evaluation:  # of a set, not those of each task
            own = {name: self.latest[name] for name in EVALUATION.values() if name in self.latest}
            self.evaluations[self.evaluator.evaluated_at] = own
        ours = {
            "env_steps": self.clock,  # what Tune's schedulers and callbacks go by
            DONE: self.at_end and not self.evaluator.stopped,  # Tune ends the trial
            "catching_up": progress.pace.catching_up(),
            "cloning": progress.cloning_left,
            "evaluated_at": self.evaluator.evaluated_at,
            "latest": dict(self.latest),
            "report": report,
            "spent": progress.reporter.spent(),
            "notes": notes,
        }
        return {**result, **counters, **ours}

    def _task_map(self) -> dict[str, float]:
        vectors = self.link.call(AgentLearner.task_vectors)
        return {} if vectors is None else task_map(vectors, self.config.info.tasks)

    def _refuse_to_go_round(self, has_moved: bool, lost: int) -> None:
        """End a run whose env runners die again and again."""
        self._lost_in_a_row = 0 if has_moved else self._lost_in_a_row + lost
        if self._lost_in_a_row > self.config.num_consecutive_env_runner_failures_tolerance:
            raise PassingError(
                f"env runners have died {self._lost_in_a_row} times without bringing a step: see their logs "
                "(worker-*.err in Ray's session folder)"
            )

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        if components is None:
            state[_STATE] = {
                **self.progress.state(),
                "evaluated_at": self.evaluator.evaluated_at,
                "latest": self.latest,
                "evaluations": self.evaluations,
                "saved_at": self.clock,
                "eval_every": self.config.eval_every,
                "metric": self.config.info and f"eval/{self.config.info.metric}",  # what the task declares
            }
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if own := state.get(_STATE):
            self.progress.restore(own)
            self.evaluator.evaluated_at, self.latest = own["evaluated_at"], own["latest"]
            self.evaluations = own.get("evaluations", {})
            self._reported = self.env_steps, self.grad_updates

    def tell(self, line: str) -> None:
        self.progress.notes.append(line)

    def settle(self) -> None:
        self._loop.drain()

    def discard(self) -> None:
        self.evaluator.discard()
        self._loop.discard()

    def saved(self, checkpoint: Path) -> None:
        """Film an episode of each task, where asked for and the last step is done.

        A stop ends that: the checkpoint is whole without films.
        """
        if not self.at_end or self.evaluator.stopped:
            return
        for task in _filmed(self.config):
            try:
                with doing(self.trial_id, "filming"):
                    film_episode(checkpoint, task, checkpoint / VIDEO_FOLDER, self.config.env_step_timeout_s)
            except EvaluationStopped:
                logger.warning("no film of '%s': a stop came first; evaluate --video makes one", task)
                return

    @staticmethod
    def _require_films(config: Any) -> None:
        """Refuse films that nothing here can draw; of each simulator, one task tells."""
        suites: set[str] = set()
        for task in _filmed(config):
            if (suite := task_info(task).suite) not in suites or suite in ("gymnasium", "registered"):
                require_film(task)
                suites.add(suite)


def _filmed(config: Any) -> Sequence[str]:
    return config.info.tasks or (config.info.name,) if config.videos and config.info else ()
