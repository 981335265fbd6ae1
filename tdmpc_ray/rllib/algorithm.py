"""TDMPC2: the paper's loop on RLlib."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pyarrow.fs import LocalFileSystem
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EVALUATION_RESULTS, LEARNER_RESULTS

from tdmpc_ray.core.threads import limit_threads
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.checkpoint import load_module
from tdmpc_ray.rllib.config import TDMPC2Config
from tdmpc_ray.rllib.env_runner import on_runners
from tdmpc_ray.rllib.evaluate import film_episode
from tdmpc_ray.rllib.fragments import Sampled, sample_fragments
from tdmpc_ray.rllib.learner import TDMPC2Learner
from tdmpc_ray.rllib.report import Reporter
from tdmpc_ray.rllib.video import require_film

REPLAY_FOLDER = "replay"
VIDEO_FOLDER = "videos"
_NO_RUNNER_S = 1.0
T = TypeVar("T")


class TDMPC2(Algorithm):
    """TD-MPC2 (Hansen et al., 2024) with planning env runners and a replay inside the learner."""

    config: TDMPC2Config

    @classmethod
    def get_default_config(cls) -> TDMPC2Config:
        return TDMPC2Config()

    def setup(self, config: TDMPC2Config) -> None:
        limit_threads(int(config.num_cpus_for_main_process))
        for task in self._filmed(config)[:1]:
            require_film(task)
        super().setup(config)
        data, episode_length = config.agent().data, config.episode_length
        assert episode_length is not None  # validated
        self.seed_steps = data.num_seed_steps(episode_length)
        self.utd_ratio = data.utd_ratio
        self.env_steps = 0  # agent steps whose transitions are in the replay
        self.random_steps = 0  # of these, the ones taken before the first update
        self.grad_updates = 0
        self.lost_fragments = 0
        self.evaluated_at = 0
        self.last_evaluation: dict[str, float] = {}
        self._reporter = Reporter(*self._on_learner(TDMPC2Learner.model_cost))
        if config.start_from is not None:
            state = load_module(Path(config.start_from)).get_state()
            self._on_learner(TDMPC2Learner.load_networks, state=state)
            self._sync_weights()

    def training_step(self) -> None:
        """Collect, store, update, until this iteration's share of steps or of time is done."""
        config, started = self.config, time.perf_counter()
        boundary = self._next_boundary()
        while self.env_steps < boundary or self.updates_owed() > 0:
            if self.updates_owed() == 0 and not self._collect(boundary - self.env_steps):
                time.sleep(_NO_RUNNER_S)  # RLlib restarts runners between iterations
                break
            if num_updates := min(self.updates_owed(), config.updates_per_call):
                self._learn(num_updates)
            # Tune stops a trial at its last step, so there all updates have to be done.
            at_end = config.total_steps is not None and self.env_steps >= config.total_steps
            if time.perf_counter() - started > config.max_time_s_per_iteration and not at_end:
                break

    def updates_owed(self) -> int:
        """Gradient updates that the environment steps so far allow and that have not been taken.

        None during the random steps; then as many updates as random steps; then `utd_ratio` per step.
        """
        if self.env_steps < self.seed_steps:
            return 0
        allowed = self.random_steps + (self.env_steps - self.random_steps) * self.utd_ratio
        return max(math.floor(allowed) - self.grad_updates, 0)

    def _next_boundary(self) -> int:
        """Agent steps at which this iteration ends: its length, the next evaluation, or the last step."""
        if self.updates_owed() > 0:
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
        if self.env_steps < self.seed_steps:
            limit = min(limit, self.seed_steps - self.env_steps)
        config, runners = self.config, self.env_runner_group
        num_remote = runners.num_healthy_remote_workers()
        share = -(-limit // max(num_remote, 1))
        fragment = config.get_rollout_fragment_length() * config.num_envs_per_env_runner
        started = time.perf_counter()
        sampled: list[Sampled] = on_runners(
            runners,
            partial(sample_fragments, num_timesteps=min(share, fragment), as_ref=config.num_learners > 0),
            local=config.num_env_runners == 0,
        )
        self._reporter.add_time("sample", time.perf_counter() - started)
        if not sampled:
            return False
        self.metrics.aggregate([s.metrics for s in sampled], key=ENV_RUNNER_RESULTS)
        batches = [s.fragments for s in sampled]
        added, lost = self._on_learner(TDMPC2Learner.ingest, batches=batches)
        self.env_steps += added
        if self.grad_updates == 0:
            self.random_steps = self.env_steps
        self.lost_fragments += lost
        return True

    def _learn(self, num_updates: int) -> None:
        """Run updates on the learner, then hand the new weights to the env runners."""
        started = time.perf_counter()
        losses = self._on_learner(TDMPC2Learner.learn, num_updates=num_updates)
        self.grad_updates += num_updates
        self._reporter.add_time("learn", time.perf_counter() - started)
        self._reporter.add_losses(losses, num_updates)
        for name, value in losses.items():
            self.metrics.log_value((LEARNER_RESULTS, DEFAULT_MODULE_ID, name), value, window=1)
        if self.updates_owed() == 0:
            self._sync_weights()

    def _sync_weights(self) -> None:
        self.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.learner_group, inference_only=True
        )

    def _on_learner(self, method: Callable[..., T], **kwargs: Any) -> T:
        """Call a method of the learner, which lives in this process or in an actor of its own.

        Raises:
            RuntimeError: the learner's process is gone.
        """
        results = list(self.learner_group.foreach_learner(partial(method, **kwargs)))
        if not results:
            raise RuntimeError("the learner's process has died")
        value = results[0].get()
        if results[0].ok:
            return value
        # RLlib hands the error over as if it were the result; Ray wraps it together with its traceback.
        raise getattr(value, "cause", None) or value

    def step(self) -> dict[str, Any]:
        """One `train()`: RLlib's iteration, then an evaluation where one is due by agent steps."""
        started, steps, updates = time.perf_counter(), self.env_steps, self.grad_updates
        result = super().step()
        if self._evaluation_due():
            result.update(self._run_one_evaluation(parallel_train_future=None))
        if self.last_evaluation:
            self.evaluated_at = self.env_steps
            evaluated = result.setdefault(EVALUATION_RESULTS, {}).setdefault(ENV_RUNNER_RESULTS, {})
            evaluated.update(self.last_evaluation)
        self._reporter.wall_s += time.perf_counter() - started
        counters = {
            "env_steps": self.env_steps,
            "env_frames": self.env_steps * self.config.action_repeat,
            "grad_updates": self.grad_updates,
            "lost_fragments": self.lost_fragments,
        }
        report = self._reporter.report(
            result, self.last_evaluation, counters, self.env_steps - steps, self.grad_updates - updates
        )
        self.last_evaluation = {}
        return {**result, **counters, "updates_owed": self.updates_owed(), "report": report}

    def _evaluation_due(self) -> bool:
        every, total = self.config.eval_every, self.config.total_steps
        if every is None or self.updates_owed() > 0 or self.evaluated_at == self.env_steps:
            return False
        at_end = total is not None and self.env_steps >= total
        return at_end or self.env_steps // every > self.evaluated_at // every

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        if components is None:
            state["tdmpc2"] = {
                "env_steps": self.env_steps,
                "random_steps": self.random_steps,
                "grad_updates": self.grad_updates,
                "lost_fragments": self.lost_fragments,
                "evaluated_at": self.evaluated_at,
                "wall_s": self._reporter.wall_s,
            }
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        own = dict(state.get("tdmpc2", {}))
        self._reporter.wall_s = own.pop("wall_s", self._reporter.wall_s)
        for name, value in own.items():
            setattr(self, name, value)

    def save_to_path(self, path: Any = None, *args: Any, **kwargs: Any) -> str:
        """Save a checkpoint: RLlib's files, and the replay as one plain file under `replay/`.

        The one of the last step holds films of an episode of each task under `videos/`, where asked for.

        Raises:
            UserError: the place is no local folder.
        """
        _require_local(path, kwargs.get("filesystem"))
        config = self.config
        saved = super().save_to_path(path, *args, **kwargs)
        folder = Path(saved) / REPLAY_FOLDER
        self._on_learner(TDMPC2Learner.save_replay, folder=folder)
        if config.total_steps is not None and self.env_steps >= config.total_steps:
            for task in self._filmed(config):
                film_episode(Path(saved), task, Path(saved) / VIDEO_FOLDER)
        return saved

    @staticmethod
    def _filmed(config: TDMPC2Config) -> Sequence[str]:
        return config.info.tasks or (config.info.name,) if config.videos and config.info else ()

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """Load a checkpoint that `save_to_path` wrote, with its replay.

        Raises:
            UserError: the place is no local folder, or its replay is missing or damaged.
        """
        _require_local(path, kwargs.get("filesystem"))
        super().restore_from_path(path, *args, **kwargs)
        folder = Path(path) / REPLAY_FOLDER
        if "component" not in kwargs:
            self._on_learner(TDMPC2Learner.load_replay, folder=folder)


def _require_local(path: Any, filesystem: Any) -> None:
    is_local = filesystem is None or isinstance(filesystem, LocalFileSystem)
    if not is_local or "://" in str(path or "").removeprefix("file://"):
        raise UserError(
            f"checkpoints go to local folders, not to {path}: let Tune upload them (RunConfig.storage_path)"
        )
