"""The checkpoint to use of those that a run or a study has kept."""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tdmpc_ray.datasets.chunk_store import DamagedCheckpoint
from tdmpc_ray.rllib.checkpoints.load import MODULE, checkpoints_below, find_checkpoint
from tdmpc_ray.rllib.checkpoints.manifest import is_complete, verify
from tdmpc_ray.studies.file.files import STUDY_FILE
from tdmpc_ray.studies.file.python_path import use_folder_again
from tdmpc_ray.studies.file.tune_folder import TUNE_FOLDER
from tdmpc_ray.studies.models.declared import declared_goal

_METADATA = MODULE / "metadata.json"
_STATE_FILE = "algorithm_state.pkl"
_NEAR = 0.25  # of the steps between evaluations: networks that far apart count as evaluated together
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoredCheckpoint:
    """A whole checkpoint and the evaluation of its networks, or of those a few updates before or after.

    Attributes:
        path: of the checkpoint.
        metric: what it was judged by, such as `eval/return`, see `declared_goal`.
        score: value of the metric; None where no such networks have been evaluated.
        evaluated_at: agent steps of the networks that were evaluated.
        out: folder of the study that it belongs to, if any.
        is_minimized: whether the smaller score is the better one.
    """

    path: Path
    metric: str
    score: float | None
    evaluated_at: int
    out: Path | None
    is_minimized: bool = False

    @property
    def trial(self) -> str | None:
        """Folder name of the trial in its study."""
        return None if self.out is None else self.path.parent.name

    @property
    def trial_id(self) -> str | None:
        """Tune's id of the trial, with which its folder's name ends."""
        return None if self.trial is None else self.trial.rpartition("-")[2]

    @property
    def name(self) -> str:
        """Of the checkpoint, with its trial's."""
        return self.path.name if self.trial is None else f"{self.trial}/{self.path.name}"

    def __str__(self) -> str:
        if self.score is None:
            return f"{self.name} (not evaluated)"
        return f"{self.name} ({self.metric} {self.score:.4g} at {self.evaluated_at:,} steps)"


def best_checkpoint(source: Path) -> ScoredCheckpoint:
    """The checkpoint at `source`, or the one with the best evaluation of those kept below it.

    Of equals, and of those that nobody has evaluated, the newest.

    Raises:
        UserError: there is none, or none that is whole.
    """
    newest = find_checkpoint(source)
    found = _scored(source)
    if not found:
        verify(newest)  # says what is wrong with it
    return max(found, key=_rank)


def files_of_best(source: Path) -> list[Path]:
    """The folder of `best_checkpoint`, for `at_hand`."""
    return [best_checkpoint(source).path]


def best_of_trials(out: Path) -> list[ScoredCheckpoint]:
    """The best checkpoint of each trial of a study's folder, in the order of the trials' names."""
    best: dict[Path, ScoredCheckpoint] = {}
    for found in _scored(out / TUNE_FOLDER):
        other = best.get(found.path.parent)
        if other is None or _rank(found) > _rank(other):
            best[found.path.parent] = found
    return [best[folder] for folder in sorted(best)]


def study_folder(path: Path) -> Path | None:
    """The folder of the study that a checkpoint or a trial's folder lies in, or is."""
    path = path.absolute()
    return next((folder for folder in (path, *path.parents) if (folder / STUDY_FILE).is_file()), None)


def _scored(source: Path) -> list[ScoredCheckpoint]:
    scored: list[Path] = []
    for path in checkpoints_below(source.absolute()):
        if not is_complete(path):
            continue  # it was being written when its process ended
        try:
            verify(path, below=_STATE_FILE)
        except DamagedCheckpoint as error:
            _log.warning("%s; it is left out", error)
            continue
        scored.append(path)
    own = {path: _own_state(path) for path in scored}
    return [_score(path, own[path], _evaluations(path, own)) for path in scored]


def _evaluations(path: Path, own: dict[Path, dict[str, Any]]) -> dict[int, dict[str, float]]:
    """Those that a checkpoint knows of, and what its trial's later ones add that go on from its history.

    A run that was stopped may make up for an evaluation only after it was saved; but a member of a population
    may have gone on from another's networks, with the evaluations of these.
    """
    known = dict(own[path].get("evaluations", {}))
    for later in sorted(other for other in own if other.parent == path.parent and other > path):
        found = own[later].get("evaluations", {})
        if all(found.get(step) == values for step, values in known.items()):
            known |= found
    return known


def _own_state(path: Path) -> dict[str, Any]:
    """What the algorithm has saved of itself; imported networks have none."""
    state = path / _STATE_FILE
    return pickle.loads(state.read_bytes()).get("tdmpc_ray", {}) if state.is_file() else {}


def _score(path: Path, own: dict[str, Any], evaluations: dict[int, dict[str, float]]) -> ScoredCheckpoint:
    out = study_folder(path)
    if out is not None and path.parent.parent != out / TUNE_FOLDER:
        out = None  # what a study began with, such as imported networks
    if out is not None:
        use_folder_again(out)  # for tasks in modules beside the study's file
    goal = declared_goal(path, out, own)
    if "saved_at" in own:
        at = _nearest(own, [step for step, values in evaluations.items() if goal.metric in values])
        score = None if at is None else evaluations[at][goal.metric]
    else:  # by an older version
        at, score = own.get("evaluated_at", 0), own.get("latest", {}).get(goal.metric)
    return ScoredCheckpoint(path, goal.metric, score, at or 0, out, goal.is_minimized)


def _nearest(own: dict[str, Any], steps: Collection[int]) -> int | None:
    """Of the evaluations at `steps`, the one of a checkpoint's networks; None where none is near to it."""
    saved_at = own["saved_at"]
    at = min(steps, key=lambda step: abs(step - saved_at), default=None)
    far = (own["eval_every"] or 0) * _NEAR
    return None if at is None or abs(at - saved_at) > far else at


def _rank(scored: ScoredCheckpoint) -> tuple[float, int]:
    saved = (scored.path / _METADATA).stat().st_mtime_ns
    score = scored.score
    if score is None or not math.isfinite(score):
        return -math.inf, saved
    return -score if scored.is_minimized else score, saved
