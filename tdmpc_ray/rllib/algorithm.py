"""TDMPC2: the paper's loop on RLlib."""

from __future__ import annotations

import logging
import operator
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EVALUATION_RESULTS,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)
from ray.tune.result import DONE

from tdmpc_ray.core.threads import limit_threads
from tdmpc_ray.envs import task_info
from tdmpc_ray.errors import PassingError, UserError
from tdmpc_ray.rllib.activity import doing
from tdmpc_ray.rllib.async_loop import AsyncLoop
from tdmpc_ray.rllib.config import TDMPC2Config
from tdmpc_ray.rllib.durable import DurableAlgorithm
from tdmpc_ray.rllib.env_runner import RESTARTS
from tdmpc_ray.rllib.evaluate import film_episode
from tdmpc_ray.rllib.evaluator import Evaluator
from tdmpc_ray.rllib.fault_window import FaultWindow
from tdmpc_ray.rllib.fragments import Sampled
from tdmpc_ray.rllib.learner import TDMPC2Learner
from tdmpc_ray.rllib.learner_link import LearnerLink
from tdmpc_ray.rllib.notes import OnceNotes
from tdmpc_ray.rllib.pace import Pace
from tdmpc_ray.rllib.recovery import explain, give_state, require_built, take_back
from tdmpc_ray.rllib.replay_memory import with_memory
from tdmpc_ray.rllib.report import Reporter
from tdmpc_ray.rllib.sampling import RUNNER_STEPS, sample_together, shards
from tdmpc_ray.rllib.start_networks import check_networks, read_networks
from tdmpc_ray.rllib.stop_request import EvaluationStopped
from tdmpc_ray.rllib.system_metrics import SystemMetrics
from tdmpc_ray.rllib.video import require_film
from tdmpc_ray.rllib.work import Work, merged

logger = logging.getLogger(__name__)

VIDEO_FOLDER = "videos"
_NO_RUNNER_S = 1.0


class TDMPC2(DurableAlgorithm):
    """TD-MPC2 (Hansen et al., 2024) with planning env runners and a replay inside the learner."""

    config: TDMPC2Config

    @classmethod
    def get_default_config(cls) -> TDMPC2Config:
        return TDMPC2Config()

    @classmethod
    def default_resource_request(cls, config: Any) -> Any:
        """RLlib's, and the replay's memory."""
        resolved = cls.get_default_config().update_from_dict(config)
        return super().default_resource_request(with_memory(resolved))

    def setup(self, config: TDMPC2Config) -> None:
        limit_threads(int(config.num_cpus_for_main_process))
        suites: set[str] = set()
        for task in self._filmed(config):
            if (suite := task_info(task).suite) not in suites or suite in ("gymnasium", "registered"):
                require_film(task)
                suites.add(suite)
        networks = {} if config.start_from is None else read_networks(config.start_from)
        notes = check_networks(networks, [config]) if networks else []
        try:
            super().setup(config)
        except Exception as error:
            explain(error)
            raise
        for runners in (self.env_runner_group, self.eval_env_runner_group):
            if runners is not None:
                require_built(runners)
        data, tasks = config.agent().data, config.tasks
        self.notes = notes
        self._once = OnceNotes(config.agent())
        if config.agent().model.episodic and "model.episodic" not in config.agent_overrides:
            logger.info("%s can terminate: the model learns to foresee it (model.episodic)", config.task)
        self.pace = Pace(
            data.utd_ratio,
            config.num_seed_steps,
            config.lead,
            config.max_lead,
            seed_per_task=data.seed_steps_per_task([task.episode_length for task in tasks]),
            task_steps=[0] * max(len(tasks), 1),
        )
        self.updates_before = 0  # of the networks that the run began with, by which runners know new weights
        self.lost_fragments = 0
        self.runner_restarts = 0
        self._lost_in_a_row = 0  # fragments, since the last step
        self.env_faults = 0
        self._fault_window = FaultWindow(config.max_env_faults)
        self.skipped_updates = 0  # as loss or gradient were not finite
        self.steps_left_out = 0  # in no sequence
        self.latest: dict[str, float] = {}  # evaluation; in every result, for Tune's schedulers
        self.link = LearnerLink(self.learner_group, config.learner_timeout_s)
        system = SystemMetrics() if config.system_metrics else None
        params, learning, planning = self.link.call(TDMPC2Learner.model_cost)
        costs = {"flops_per_plan": planning, "seed_steps": self.pace.seed_steps}
        self.reporter = Reporter(params, learning, system, **costs)
        self._loop = AsyncLoop(self) if config.is_asynchronous else None
        self.evaluator = Evaluator(self)
        if networks:
            self.updates_before = self.link.call(TDMPC2Learner.load_networks, state=networks)
            self._sync_weights()

    @property
    def env_steps(self) -> int:
        """Agent steps whose transitions are in the replay."""
        return self.pace.env_steps

    @property
    def grad_updates(self) -> int:
        """Gradient updates taken."""
        return self.pace.grad_updates

    @property
    def at_end(self) -> bool:
        """Whether all of `total_steps` are taken."""
        total = self.config.total_steps
        return total is not None and self.env_steps >= total

    def training_step(self) -> None:
        """Collect, store, update, until this iteration's share of steps or of time is done."""
        if self._loop is not None:
            self._loop.run()
            return
        config, started = self.config, time.perf_counter()
        boundary = self._next_boundary()
        while self.env_steps < boundary or self.pace.updates_owed() > 0:
            if self.pace.updates_owed() == 0 and not self._collect(boundary - self.env_steps):
                time.sleep(_NO_RUNNER_S)  # RLlib restarts runners between iterations
                break
            if num_updates := min(self.pace.updates_owed(), config.updates_per_call):
                self._learn(num_updates)
            # Tune stops a trial at its last step, so there all updates have to be done.
            if time.perf_counter() - started > config.max_time_s_per_iteration and not self.at_end:
                break
        self._work((), num_updates=0, read=True)
        if config.num_env_runners == 0:
            self.metrics.aggregate([self.env_runner.get_metrics()], key=ENV_RUNNER_RESULTS)

    def _next_boundary(self) -> int:
        """Agent steps at which this iteration ends: its length, the next evaluation, or the last step."""
        # A stop may have kept the last evaluation from taking place: it is all that is left to do.
        if self.pace.updates_owed() > 0 or (self.at_end and self.evaluator.is_due()):
            return self.env_steps
        config, boundaries = self.config, [self.env_steps + self.config.steps_per_iteration]
        if config.eval_every:
            boundaries.append((self.env_steps // config.eval_every + 1) * config.eval_every)
        if config.total_steps and self.env_steps < config.total_steps:
            boundaries.append(config.total_steps)
        return min(boundaries)

    def _collect(self, limit: int) -> bool:
        """Sample one fragment from every env runner, about `limit` steps in all; False: all are dead.

        Raises:
            UserError: an environment breaks its contract.
        """
        config = self.config
        fragment = config.get_rollout_fragment_length() * config.num_envs_per_env_runner
        if self.env_steps < self.pace.seed_steps:
            limit = min(limit, self.pace.seed_steps - self.env_steps)
        if self.grad_updates == 0:  # no update comes between
            fragment = max(fragment, RUNNER_STEPS)
        started = time.perf_counter()
        local = config.num_env_runners == 0
        sampled, dead = sample_together(self.env_runner_group, limit, fragment, local=local)
        self.lost_fragments += dead
        self.reporter.add_time("sample", time.perf_counter() - started)
        if not sampled:
            return False
        self.observe(sampled)
        self._work(sampled, num_updates=0)
        return True

    def _learn(self, num_updates: int) -> None:
        """Run updates on the learners, then hand the new weights to the env runners."""
        self._work((), num_updates)
        if self.pace.updates_owed() == 0:
            self._sync_weights()

    def _work(self, sampled: Sequence[Sampled], num_updates: int, *, read: bool = False) -> None:
        batches = shards(sampled, self.link.num_learners)
        same = {"num_updates": num_updates, "with_weights": False, "read": read}
        works = self.link.call_each(TDMPC2Learner.work, [{"batches": own, **same} for own in batches])
        self.count(merged(works))

    def count(self, work: Work) -> None:
        """Take what the learners have done into counters and metrics."""
        self.pace.add_steps(work.added, work.per_task)
        self.pace.is_ready = work.is_ready
        self.lost_fragments += work.lost
        self.pace.grad_updates += work.num_updates
        if work.num_updates:
            self.reporter.add_time("learn", work.seconds)
        self.skipped_updates += work.losses.num_skipped
        self.steps_left_out = work.left_out
        self.reporter.add_losses(work.losses.means, work.losses.num_updates)
        for name, value in work.losses.means.items():
            self.metrics.log_value((LEARNER_RESULTS, DEFAULT_MODULE_ID, name), value, window=1)

    def _sync_weights(self) -> None:
        if self.config.shares_networks:
            learning = self.learner_group._learner.module[DEFAULT_MODULE_ID].unwrapped()
            self.env_runner.module.unwrapped().share_networks(learning)
            return
        self.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.learner_group, inference_only=True
        )

    def observe(self, sampled: Sequence[Sampled]) -> None:
        """Take what env runners tell beside their fragments into counters and metrics.

        Raises:
            UserError: there are more faults of environments than `max_env_faults` allows.
        """
        if metrics := [part.metrics for part in sampled if part.metrics is not None]:
            self.metrics.aggregate(metrics, key=ENV_RUNNER_RESULTS)
        for part in sampled:
            self.count_faults(part.faults, part.steps)
            behind = self.updates_before + self.grad_updates - part.updates
            age = {"perf/weights_age": (float(behind), 1)} if part.updates else {}
            self.reporter.add_means({**(part.means or {}), **age})

    def count_faults(self, faults: Sequence[str], steps: int) -> None:
        """Count faults of environments within `steps` agent steps.

        Raises:
            UserError: there are more of them than `max_env_faults` allows.
        """
        self.env_faults += len(faults)
        self._fault_window.add(faults, steps)

    def compute_single_action(self, *args: Any, **kwargs: Any) -> Any:
        """RLlib's old interface, which has no place for the plan that one step hands on to the next.

        Raises:
            UserError: names the way.
        """
        raise UserError(
            "act with tdmpc_ray.rllib.evaluate.load_agent(CHECKPOINT).act(obs, is_first): it keeps each "
            "episode's plan from step to step, for which compute_single_action has no place"
        )

    compute_actions = compute_single_action

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Take restarted runners back, with the learner's weights; waits for none."""
        restored = take_back(env_runner_group)
        if restored:
            self.runner_restarts += len(restored)
            kind = "evaluation" if env_runner_group is self.eval_env_runner_group else "env"
            self.notes += [f"{kind} runner {runner} had died and is back" for runner in restored]
            self.link.settle()
            learner = self.learner_group.get_state(
                components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}", inference_only=True
            )[COMPONENT_LEARNER]
            # Both keep a runner from playing its first episodes again (`fresh_seed`).
            progress = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.env_steps, RESTARTS: self.runner_restarts}
            state = {**learner, **progress}
            give_state(env_runner_group, restored, state)
        return restored

    def step(self) -> dict[str, Any]:
        """One `train()`: RLlib's iteration, then an evaluation where one is due by agent steps."""
        started, steps, updates = time.perf_counter(), self.env_steps, self.grad_updates
        lost = self.lost_fragments
        result = super().step()
        self._lost_in_a_row = (
            self._lost_in_a_row + self.lost_fragments - lost if self.env_steps == steps else 0
        )
        if self._lost_in_a_row > self.config.num_consecutive_env_runner_failures_tolerance:
            raise PassingError(
                f"env runners have died {self._lost_in_a_row} times without bringing a step: see their logs "
                "(worker-*.err in Ray's session folder)"
            )
        result.update(self.evaluator.run())
        if evaluation := self.evaluator.last:
            evaluated = result.setdefault(EVALUATION_RESULTS, {}).setdefault(ENV_RUNNER_RESULTS, {})
            evaluated.update(evaluation)
        self.reporter.wall_s += time.perf_counter() - started
        counters = {
            "env_steps": self.env_steps,
            "env_frames": sum(map(operator.mul, self.pace.task_steps, self.config.action_repeats)),
            "grad_updates": self.grad_updates,
            "lost_fragments": self.lost_fragments,
            "runner_restarts": self.runner_restarts,
            "env_faults": self.env_faults,
            "skipped_updates": self.skipped_updates,
            "steps_left_out": self.steps_left_out,
        }
        report = self.reporter.report(
            result, evaluation, counters, self.env_steps - steps, self.grad_updates - updates
        )
        self.evaluator.last = {}
        self.latest |= {name: value for name, value in report.items() if name.startswith("eval/")}
        notes = [*self.notes, *self._fault_window.lines(), *self._once.lines(report)]
        self.notes = []
        told = {
            DONE: self.at_end and not self.evaluator.stopped,  # Tune ends the trial
            "catching_up": self.pace.catching_up(),
            "evaluated_at": self.evaluator.evaluated_at,
            "latest": dict(self.latest),
            "report": report,
            "spent": self.reporter.spent(),
            "notes": notes,
        }
        return {**result, **counters, **told}

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        if components is None:
            state["tdmpc2"] = {
                "pace": self.pace.state(),
                "lost_fragments": self.lost_fragments,
                "runner_restarts": self.runner_restarts,
                "env_faults": self.env_faults,
                "skipped_updates": self.skipped_updates,
                "steps_left_out": self.steps_left_out,
                "said": sorted(self._once.said),
                "evaluated_at": self.evaluator.evaluated_at,
                "reporter": self.reporter.state(),
                "latest": self.latest,
                "metric": self.config.info and f"eval/{self.config.info.metric}",  # what the task declares
                "updates_before": self.updates_before,
            }
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        own = dict(state.get("tdmpc2", {}))
        own.pop("metric", None)
        self.reporter.restore(own.pop("reporter", {}))
        self.pace.restore(own.pop("pace", {}))
        self._once.said = set(own.pop("said", ()))
        for name, value in own.items():
            setattr(self.evaluator if hasattr(self.evaluator, name) else self, name, value)

    def settle(self) -> None:
        if self._loop is not None:
            self._loop.drain()

    def discard(self) -> None:
        self.evaluator.discard()
        if self._loop is not None:
            self._loop.discard()

    def saved(self, checkpoint: Path) -> None:
        """Film an episode of each task, where asked for and the last step is done.

        A stop ends that: the checkpoint is whole without films.
        """
        if self.at_end and not self.evaluator.stopped:
            for task in self._filmed(self.config):
                try:
                    with doing(self.trial_id, "filming"):
                        film_episode(
                            checkpoint, task, checkpoint / VIDEO_FOLDER, self.config.env_step_timeout_s
                        )
                except EvaluationStopped:
                    logger.warning("no film of '%s': a stop came first; evaluate --video makes one", task)
                    return

    @staticmethod
    def _filmed(config: TDMPC2Config) -> Sequence[str]:
        return config.info.tasks or (config.info.name,) if config.videos and config.info else ()
