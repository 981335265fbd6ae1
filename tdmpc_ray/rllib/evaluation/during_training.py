"""When to evaluate, and whether training waits for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import ray
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE

from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.acting.actors import open_requests
from tdmpc_ray.rllib.acting.env_runner import result_or_error
from tdmpc_ray.rllib.acting.stop_request import is_asked
from tdmpc_ray.rllib.evaluation.on_runners import evaluation_call, summarize
from tdmpc_ray.rllib.metrics.activity import doing

logger = logging.getLogger(__name__)

_TAG = "evaluate"
_NO_RUNNER_S = 1.0
_LAST_EVALUATION_S = 300.0


class Evaluator:
    """Evaluates by agent steps; where a run learns from a dataset alone, by updates.

    Processes that are there to evaluate (`evaluation_num_env_runners`) do so while training goes on, with the
    networks of the moment when the evaluation was due. At the run's end, and without such processes, training
    waits.

    Args:
        algorithm: an `AgentAlgorithm`.

    Attributes:
        evaluated_at: agent steps of the networks that were evaluated last.
        last: what it gave, under RLlib's names, until a result has taken it along.
        stopped: the newest was given up, because the study is to stop; it is owed.
    """

    def __init__(self, algorithm: Any) -> None:
        self._algorithm = algorithm
        self._runners = algorithm.eval_env_runner_group
        self._in_background = algorithm.config.evaluation_num_env_runners > 0
        self.evaluated_at = 0
        self.last: dict[str, float] = {}
        self.stopped = False
        self._asked: set[int] = set()  # runners with a part of the evaluation that is under way
        self._answers: list[Any] = []
        self._asked_at = 0

    def run(self) -> dict[str, Any]:
        """After an iteration: take what is done, and begin what is due; returns RLlib's result of it.

        Raises:
            UserError: an environment breaks its contract, or fails too often.
        """
        if self.last:  # by RLlib's own interval
            self.evaluated_at = self._algorithm.clock
        if self._asked:
            self._take()
        result: dict[str, Any] = {}
        self.stopped = False
        if self.is_due():
            if self._in_background and not self._algorithm.at_end:
                if not self._asked:
                    self._begin()
            else:
                self.discard()
                result = self._wait()
                if self.last:
                    self.evaluated_at = self._algorithm.clock
        return result

    def discard(self) -> None:
        """Forget what is under way."""
        self._asked.clear()

    def is_due(self) -> bool:
        """Whether the networks of now are to be evaluated."""
        algorithm, every = self._algorithm, self._algorithm.config.eval_every
        if every is None or self.evaluated_at == algorithm.clock:
            return False
        # In turns, the updates of the last steps come first; at once, some are always owed.
        if algorithm.progress.pace.updates_owed() > 0 and (
            algorithm.at_end or not algorithm.config.is_asynchronous
        ):
            return False
        return algorithm.at_end or algorithm.clock // every > self.evaluated_at // every

    def _wait(self) -> dict[str, Any]:
        """Evaluate now; at the run's end, wait for runners that have died: it is the last chance."""
        deadline = time.monotonic() + _LAST_EVALUATION_S
        while True:
            with doing(self._algorithm.trial_id, "evaluating"):
                result = self._algorithm._run_one_evaluation(parallel_train_future=None)
            self.stopped = not self.last and is_asked()
            if self.last or self.stopped or not self._algorithm.at_end:
                return result
            if time.monotonic() > deadline:
                logger.warning("no last evaluation: the evaluation runners have died and do not come back")
                return result
            time.sleep(_NO_RUNNER_S)

    def _begin(self) -> None:
        runners, algorithm = self._runners, self._algorithm
        algorithm.restore_env_runners(runners)
        algorithm.link.settle()
        weights = algorithm.learner_group.get_state(
            components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}", inference_only=True
        )[COMPONENT_LEARNER]
        # The requests of an evaluation that was given up are still theirs to answer.
        busy = set(open_requests(runners).values())
        healthy = [runner for runner in runners.healthy_env_runner_ids() if runner not in busy]
        if not healthy:
            return
        play = evaluation_call(algorithm, healthy)
        call = partial(result_or_error, partial(_with_weights, weights=ray.put(weights), play=play))
        for runner in healthy:
            if runners.foreach_env_runner_async(call, tag=_TAG, remote_worker_ids=[runner]):
                self._asked.add(runner)
        self._answers, self._asked_at = [], algorithm.clock

    def _take(self) -> None:
        for runner, answer in self._runners.fetch_ready_async_reqs(tags=_TAG, timeout_seconds=0.0):
            if isinstance(answer, UserError):
                raise answer
            if runner in self._asked:
                self._answers.append(answer)
        playing = set(open_requests(self._runners, _TAG).values())
        if len(self._answers) == len(self._asked):
            self._asked.clear()
            summarize(self._algorithm, self._answers)
            if self.last:
                self.evaluated_at = self._asked_at
        elif len(self._answers) + len(playing & self._asked) < len(self._asked):
            self._asked.clear()  # a runner has died: it begins anew


def _with_weights(runner: Any, weights: ray.ObjectRef, play: Callable[[Any], Any]) -> Any:
    """Runs on an evaluation runner."""
    runner.set_state(ray.get(weights))
    return play(runner)
