"""result.json of a study's folder: how the study stands, for people and programs without MLflow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.files import LOCK_FILE, STUDY_FILE, TRACKING_FOLDER
from tdmpc_ray.studies.file.reading import read_mapping
from tdmpc_ray.studies.tracking.naming import short_task
from tdmpc_ray.studies.tracking.spooled import REJECTED_FILE, SPOOL_FILE

RECORD_FILE = "result.json"

Status = Literal["running", "finished", "failed", "stopped"]


class TrialRecord(BaseModel):
    """One trial, as its newest result and evaluation have it."""

    trial: str = Field(description="its folder under tune/")
    label: str = Field(description="what tells it from the others")
    params: dict[str, str | int | float | bool | None] = Field(description="task, size, seed and settings")
    status: Literal["waiting", "running", "finished", "failed", "stopped"] = "waiting"
    env_steps: int = Field(default=0, description="agent steps so far")
    total_steps: int | None = Field(default=None, description="agent steps to go to")
    evaluated_at: int | None = Field(default=None, description="agent steps at its newest evaluation")
    evaluation: dict[str, float] = Field(default={}, description="that evaluation: eval/return and others")
    train_return: float | None = Field(default=None, description="of its newest training episodes")
    hours: float = Field(default=0.0, description="that it has taken, restarts included")


class StudyRecord(BaseModel):
    """A study and its trials."""

    model_config = ConfigDict(title="result.json")

    tdmpc_ray: str = Field(description="version that wrote this")
    name: str
    tasks: list[str]
    metric: str = Field(description="what trials are judged by, such as eval/return")
    steps: int = Field(description="agent steps of its longest trial")
    expected_trials: int = Field(description="how many it will have had")
    status: Status = Field(description="running in a folder that no process holds: it was killed")
    started: float = Field(description="seconds since 1970")
    updated: float = Field(description="seconds since 1970, when this was written")
    trials: list[TrialRecord] = []


class LocalRun(BaseModel):
    """A result folder, as `tdmpc-ray runs` shows it."""

    name: str
    task: str = Field(description="of several, the first and how many others: walker-walk+3")
    trials: int | None = Field(description="how many it will have had")
    env_steps: int | None = Field(description="agent steps of the trial that has gone furthest")
    steps: int | None = Field(description="agent steps that the longest trial goes to")
    last_return: float | None = Field(
        description="eval/return of the newest evaluation, of several trials the best one's; null before one"
    )
    status: Status | Literal["killed", "unknown"] = Field(
        description="killed: its process ended without a word; unknown: no result.json, older or never begun"
    )
    started: float | None = Field(description="seconds since 1970")
    folder: str
    waits: bool = Field(description="MLflow has not got all of it: `tdmpc-ray sync` brings it the rest")


def read_record(out: Path) -> StudyRecord | None:
    """What a study's folder says of itself; None where it says nothing that can be read."""
    try:
        return StudyRecord.model_validate_json((out / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError):
        return None


def write_record(out: Path, record: StudyRecord) -> None:
    """Write it, whole or not at all."""
    new = out / f".{RECORD_FILE}.new"
    new.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    os.replace(new, out / RECORD_FILE)


def local_runs(folders: Sequence[Path]) -> list[LocalRun]:
    """The result folders among `folders` and in them, newest first."""
    found: dict[Path, Path] = {}
    for folder in folders:
        own = folder / STUDY_FILE
        for file in [own] if own.is_file() else folder.glob(f"*/{STUDY_FILE}"):
            found[file.parent.resolve()] = file.parent
    runs = [_local_run(folder) for folder in found.values()]
    return sorted(runs, key=lambda run: run.started or 0.0, reverse=True)


def _local_run(folder: Path) -> LocalRun:
    record = read_record(folder)
    if record is None:
        return _unrecorded(folder)
    returns = [
        trial.evaluation["eval/return"] for trial in record.trials if "eval/return" in trial.evaluation
    ]
    status = "killed" if record.status == "running" and not _is_held(folder) else record.status
    return LocalRun(
        name=record.name,
        task=_tasks(record.tasks),
        trials=record.expected_trials,
        env_steps=max((trial.env_steps for trial in record.trials), default=0),
        steps=record.steps,
        last_return=max(returns, default=None),
        status=status,
        started=record.started,
        folder=str(folder),
        waits=waits(folder),
    )


def _unrecorded(folder: Path) -> LocalRun:
    """What study.yaml alone tells."""
    file = folder / STUDY_FILE
    try:
        values = read_mapping(file)
    except UserError:
        values = {}
    steps = values.get("steps")
    return LocalRun(
        name=str(values.get("name", folder.name)),
        task=_tasks([str(task) for task in values.get("tasks") or [values.get("task")] if task]),
        trials=None,
        env_steps=None,
        steps=steps if isinstance(steps, int) else None,
        last_return=None,
        status="unknown",
        started=file.stat().st_mtime,
        folder=str(folder),
        waits=waits(folder),
    )


def _tasks(tasks: Sequence[str]) -> str:
    return short_task("+".join(tasks))


def waits(folder: Path) -> bool:
    """Whether MLflow has not got all of a study that no process runs."""
    left = (folder / TRACKING_FOLDER / name for name in (SPOOL_FILE, REJECTED_FILE))
    return any(file.exists() for file in left) and not _is_held(folder)


def _is_held(folder: Path) -> bool:
    """Whether a process runs the study, see `only_process`."""
    try:
        with FileLock(folder / LOCK_FILE, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder to be read alone
        return False
