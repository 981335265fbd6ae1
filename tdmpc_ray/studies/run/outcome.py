"""How a study ended, and what its trials and folders are called."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from tdmpc_ray.errors import PassingError, UserError
from tdmpc_ray.studies.run.interrupt import StopRequest
from tdmpc_ray.studies.tracking.naming import trial_label

_USER_ERROR = re.compile(r"^(tdmpc_ray\.[\w.]+)\.(\w+Error): ")  # its message says it all


@dataclass(frozen=True)
class FailedTrial:
    """A trial that has used up its restarts."""

    name: str
    reason: str  # one line
    log: Path | None


@dataclass(frozen=True)
class StudyResult:
    """How a study ended.

    Attributes:
        finished: number of trials that are done.
        failed: trials that ended with an error.
        unfinished: number of trials that a resume would continue or start.
        signum: the signal that ended the study early, or None.
        checkpoints: folder of a trial to its newest checkpoint.
    """

    out: Path
    finished: int
    failed: tuple[FailedTrial, ...]
    unfinished: int
    signum: int | None
    checkpoints: dict[str, Path]

    @property
    def exit_status(self) -> int:
        """For the shell: 0, 1 with failed trials, 128 + n after signal n."""
        if self.signum is not None:
            return 128 + self.signum
        return 1 if self.failed else 0


class Outcome(tune.Callback):
    """Keeps the trials as they are at the end, and counts the results on the way.

    Args:
        params: a trial's config to what names it.
        reopened: ids of trials that had ended and go on.
    """

    def __init__(
        self, params: Callable[[dict[str, Any]], Mapping[str, Any]], reopened: Set[str] = frozenset()
    ) -> None:
        self._params = params
        self._reopened = reopened
        self._trials: list[Trial] = []
        self._ended: set[str] = set()
        self.num_results = 0

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.num_results += 1

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended.add(trial.trial_id)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        self._trials = trials

    def result(self, out: Path, request: StopRequest, expected: int) -> StudyResult:
        """How the study of `expected` trials ended; Tune has not created those that never began."""
        failed = [trial for trial in self._trials if trial.status == Trial.ERROR]
        # Not by status: Tune marks the trials that it stops with itself as TERMINATED.
        # A scheduler can end a trial between two of its results.
        ended = {t.trial_id for t in self._trials if t.last_result.get("done")} | self._ended
        finished = [t for t in self._trials if t not in failed and t.trial_id in ended]
        unfinished = expected - len(failed) - len(finished)
        return StudyResult(
            out=out,
            finished=len(finished),
            failed=tuple(FailedTrial(self._label(trial), *failure(trial)) for trial in failed),
            unfinished=unfinished,
            signum=request.signum if unfinished else None,
            checkpoints={trial_name(t): Path(t.checkpoint.path) for t in self._trials if t.checkpoint},
        )

    def _label(self, trial: Trial) -> str:
        return trial_label(self._params(trial.config))

    def get_state(self) -> dict[str, Any]:
        return {"ended": sorted(self._ended)}

    def set_state(self, state: dict[str, Any]) -> None:
        self._ended = set(state["ended"]) - self._reopened

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_trials": []}


def trial_name(trial: Trial) -> str:
    """Also a folder's name: short, readable, unique."""
    config = trial.config
    return f"size{config['model_size']}-seed{config['seed']}-{trial.trial_id}"


def failure(trial: Trial) -> tuple[str, Path | None]:
    """Why a trial has failed the last time, in one line, and the file that has more."""
    files = [Path(trial.path or "") / "error.txt", Path(trial.error_file or "")]
    file = next((file for file in files if file.is_file()), None)
    return error_reason(file.read_text(encoding="utf-8", errors="replace") if file else ""), file


def failure_reason(trial: Trial) -> str:
    """Why a trial has failed the last time, in one line."""
    return failure(trial)[0]


def error_reason(text: str) -> str:
    """The gist in one line of a trial's error file, which holds a report per failure."""
    return _USER_ERROR.sub("", _last_error(text))[:300] or "unknown error"


def is_final(text: str) -> bool:
    """Whether another try cannot help, by a trial's error file: what only the user can mend."""
    named = _USER_ERROR.match(_last_error(text))
    if named is None:
        return False
    kind = getattr(importlib.import_module(named[1]), named[2])
    return issubclass(kind, UserError) and not issubclass(kind, PassingError)


@contextlib.contextmanager
def no_vain_tries() -> Iterator[None]:
    """Within, Tune does not start a trial again whose error is final; it has no setting for that."""
    should_recover = Trial.should_recover

    def may_recover(trial: Trial) -> bool:
        file = Path(trial.error_file or "")  # Tune has just written it, and brings it to the results later
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        return should_recover(trial) and not is_final(text)

    Trial.should_recover = may_recover
    try:
        yield
    finally:
        Trial.should_recover = should_recover


def _last_error(text: str) -> str:
    """The line of an error file that names the last error; empty where there is none."""
    lines = text.rpartition("Failure # ")[2].splitlines()[1:]
    frames = [number for number, line in enumerate(lines) if line.lstrip().startswith('File "')]
    # A traceback ends with its reason, on the first line that is not indented; Ray's report of a dead
    # process begins with it.
    lines = [line for line in lines[frames[-1] if frames else 0 :] if line.strip() and line[0] != " "]
    return lines[0].strip() if lines else ""
