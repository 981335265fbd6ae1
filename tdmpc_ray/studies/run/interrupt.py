"""Ending a study on request without losing what its trials have learned.

Tune's own answer to Ctrl-C drops everything since each trial's last checkpoint. Here the first request
makes every running trial save at its next result and then hold still; then Tune ends its loop with these
trials still marked as running in its saved state, so that a resume continues them. A trial that evaluates
gives that up, and makes up for it when it goes on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import termios
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

_CLONING_S = 60.0  # between two checkpoints of a trial that takes no steps yet
GRACE_S = 180.0  # the longest wait for the running trials; then their latest checkpoints have to do
_WARNINGS = (
    signal.SIGUSR1,
    signal.SIGHUP,
    signal.SIGXCPU,
)  # of a batch system, a terminal that goes, a limit
SIGNALS = (signal.SIGINT, signal.SIGTERM, *_WARNINGS)
_TUNE_STOPS_AT = signal.SIGUSR1  # Tune ends its loop at this one


class StopRequest:
    """How often this process has been asked to stop the study that it runs.

    Attributes:
        signum: the signal that did, the last time.
        end_loop: has Tune's loop end; None while it does not run.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.count = 0
        self.end_loop: Callable[[], Any] | None = None

    def __call__(self, signum: int, frame: Any = None) -> None:
        """Signal handler: first save, at the second time end at once, at the third give up."""
        if signum == signal.SIGHUP:
            _leave_terminal()
        if signum in _WARNINGS and self.count:
            return  # they come again: SIGXCPU each second, SIGHUP from the kernel and from the shell
        self.signum = signum
        self.count += 1
        if self.count == 2:
            end_tune_loop()
        elif self.count > 2:
            raise KeyboardInterrupt


# Signals belong to the process, and so does this; callbacks and schedulers, which Tune pickles, look here.
_request = StopRequest()


def stop_requested() -> bool:
    """Whether the study is to end."""
    return _request.count > 0


def end_tune_loop() -> None:
    """Make Tune save its state, stop all trials and return."""
    if _request.end_loop is None:
        raise KeyboardInterrupt  # Tune's loop has not begun
    _request.end_loop()


def tune_loop_begins() -> None:
    """Take back the signal at which Tune ends its loop: batch systems warn by it, and trials save first."""
    tune_ends, is_ours = signal.getsignal(_TUNE_STOPS_AT), signal.getsignal(signal.SIGTERM) == _request
    if is_ours and callable(tune_ends) and tune_ends != _request:
        _request.end_loop = partial(tune_ends, _TUNE_STOPS_AT, None)
        signal.signal(_TUNE_STOPS_AT, _request)


@contextlib.contextmanager
def graceful_stop() -> Iterator[StopRequest]:
    """Within, `SIGNALS` end the study that Tune runs as this module says."""
    global _request
    _request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield _request  # signals cannot be handled here, neither by Tune
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    if before[signal.SIGHUP] is signal.SIG_IGN:  # nohup
        del before[signal.SIGHUP]
    tune_handles = os.environ.get("TUNE_DISABLE_SIGINT_HANDLER")
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    for number in before:
        signal.signal(number, _request)
    try:
        yield _request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if tune_handles is None:
            del os.environ["TUNE_DISABLE_SIGINT_HANDLER"]
        else:
            os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = tune_handles


@contextlib.contextmanager
def warnings_ignored() -> Iterator[None]:
    """Processes that are started within do not end at a warning, which batch systems send to all of a job."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _WARNINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_terminal() -> None:
    """Where the terminal has gone, each further line would be an error, and end the study unsaved."""
    for stream in (1, 2):
        try:
            termios.tcgetattr(stream)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


class HoldOnStop:
    """Mixin for a scheduler of Tune: once a stop is requested, no trial goes on after its result."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if stop_requested():
            return str(TrialScheduler.NOOP)
        return super().on_trial_result(tune_controller, trial, result)  # type: ignore[misc]

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        if stop_requested():
            return None
        return super().choose_trial_to_run(tune_controller)  # type: ignore[misc]


class Scheduler(HoldOnStop, FIFOScheduler):
    """Runs trials in order; holds them once a stop is requested."""


class SaveTrials(tune.Callback):
    """Has trials save every `every` agent steps and when a stop is requested; then ends Tune's loop.

    Args:
        every: agent steps between two checkpoints of a trial.
        say: called with a line for the user.
        grace_s: seconds to wait for the running trials' checkpoints.
    """

    def __init__(
        self, every: int, *, say: Callable[[str], None] | None = None, grace_s: float = GRACE_S
    ) -> None:
        self._every = every
        self._say = say
        self._grace_s = grace_s
        self._env_steps: dict[str, int] = {}
        self._cloning: dict[str, float] = {}  # trials that imitate demonstrations, and since when unsaved
        self._waiting_for: set[str] | None = None
        self._deadline = 0.0

    def setup(self, **info: Any) -> None:
        from tdmpc_ray.rllib.acting import stop_request  # late: RLlib takes seconds to import

        stop_request.withdraw()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        env_steps, before = int(result.get("env_steps", 0)), self._env_steps.get(trial.trial_id, 0)
        self._env_steps[trial.trial_id] = env_steps
        has_cloned = self._has_cloned(trial.trial_id, int(result.get("cloning", 0)))
        if stop_requested() or env_steps // self._every > before // self._every or has_cloned:
            result[SHOULD_CHECKPOINT] = True

    def _has_cloned(self, trial_id: str, left: int) -> bool:
        """Whether it has cloned its demonstrations, or has been at it for long enough to be saved."""
        at = self._cloning.get(trial_id)
        if left and at is None:
            self._cloning[trial_id] = time.monotonic()
        is_due = at is not None and (not left or time.monotonic() - at > _CLONING_S)
        if is_due or not left:
            self._cloning.pop(trial_id, None)
        return is_due

    def on_trial_save(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if self._waiting_for is not None:
            self._waiting_for.discard(trial.trial_id)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if not stop_requested():
            return
        running = {trial.trial_id for trial in trials if trial.status == Trial.RUNNING}
        if self._waiting_for is None:
            from tdmpc_ray.rllib.acting import stop_request

            stop_request.ask_to_stop()
            self._waiting_for = running
            self._deadline = time.monotonic() + self._grace_s
            if self._say:
                what = f"saving {_trials(len(running))} first (Ctrl-C again: stop without)"
                self._say(f"stopping: {what if running else 'no trial has begun'}")
        self._waiting_for &= running  # the others have ended meanwhile
        if not self._waiting_for or time.monotonic() > self._deadline:
            if self._say and self._waiting_for:
                self._say(f"{_trials(len(self._waiting_for))} did not save within {self._grace_s:.0f} s")
            end_tune_loop()

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        from tdmpc_ray.rllib.acting import stop_request

        stop_request.withdraw()

    def get_state(self) -> dict[str, Any]:
        return {"env_steps": dict(self._env_steps)}

    def set_state(self, state: dict[str, Any]) -> None:
        self._env_steps = dict(state["env_steps"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_say": None, "_waiting_for": None}  # what prints cannot be pickled


def _trials(count: int) -> str:
    return f"{count} trial" if count == 1 else f"{count} trials"
