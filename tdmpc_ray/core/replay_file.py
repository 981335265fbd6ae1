"""A replay on disk: all rows and open episodes in one `.npz` file."""

from __future__ import annotations

import zipfile
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc_ray.core.prioritized import PrioritizedReplay
from tdmpc_ray.core.replay import Lane, SequenceReplay
from tdmpc_ray.errors import UserError

_ROWS = ("obs", "action", "reward", "terminated", "next_row", "valid", "prev_row", "torn", "task")
_FILE = (*_ROWS, "counters", "lane_ids", "lane_steps", "lane_sizes", "lane_rows")


def save_replay(replay: SequenceReplay, path: Path) -> None:
    """Write all rows and open episodes to one `.npz` file."""
    size = len(replay)
    lanes = list(replay.lanes.items())
    tails = [np.array(lane.tail, np.int64) for _, lane in lanes]
    priorities: dict[str, Any] = {}
    if isinstance(replay, PrioritizedReplay):
        priorities = {"priorities": replay.priorities, "largest": np.array(replay.largest)}
    np.savez(
        path,
        **{name: getattr(replay, name)[:size] for name in _ROWS},
        **priorities,
        counters=np.array(
            [replay.capacity, replay.horizon, replay.rows_written, replay.transitions_added, replay.num_valid]
        ),
        lane_ids=np.array([key for key, _ in lanes], np.str_),
        lane_steps=np.array([lane.step for _, lane in lanes], np.int64),
        lane_sizes=np.array([len(tail) for tail in tails], np.int64),
        lane_rows=np.concatenate(tails) if tails else np.empty(0, np.int64),
    )


def load_replay(replay: SequenceReplay, path: Path) -> None:
    """Restore what `save_replay` wrote; the replay continues as if it had never stopped.

    Raises:
        UserError: the file is damaged, or was written by a replay of another shape.
    """
    try:
        with np.load(path) as file:
            data: dict[str, Any] = {name: file[name] for name in _FILE if name in file or name != "task"}
            priorities = [file[name] for name in ("priorities", "largest") if name in file]
        data.setdefault("task", np.zeros(0, np.int16))  # files from before there were several tasks
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read the replay in {path}: {error}") from None
    if data["counters"].shape != (5,):
        raise UserError(f"cannot read the replay in {path}: it is damaged")
    capacity, horizon, *counters = data["counters"].tolist()
    theirs = (capacity, horizon, data["obs"].shape[1:], data["action"].shape[1])
    ours = (replay.capacity, replay.horizon, replay.obs.shape[1:], replay.action.shape[1])
    if theirs != ours:
        raise UserError(
            f"the replay in {path} has (capacity, horizon, obs, action) = {theirs}, this run has {ours}"
        )
    if not _is_whole(replay, data):
        raise UserError(f"cannot read the replay in {path}: it is damaged")
    replay.rows_written, replay.transitions_added, replay.num_valid = counters
    for name in _ROWS:
        getattr(replay, name)[: len(replay)] = data[name]
    replay.valid[len(replay) :] = False  # what lay there before is gone
    if isinstance(replay, PrioritizedReplay):
        if priorities and priorities[0].shape == (len(replay),):
            replay.restore_priorities(priorities[0], float(priorities[1]))
        else:  # of a run that drew uniformly
            replay.restore_priorities(replay.valid[: len(replay)].astype(np.float64), 1.0)
    tails = np.split(data["lane_rows"], np.cumsum(data["lane_sizes"])[:-1])
    replay.lanes = {
        str(key): Lane(int(step), deque(tail.tolist(), maxlen=replay.horizon + 1))
        for key, step, tail in zip(data["lane_ids"], data["lane_steps"], tails, strict=False)
    }


def _is_whole(replay: SequenceReplay, data: dict[str, Any]) -> bool:
    """Whether a file's arrays belong together."""
    rows_written, num_valid = (int(data["counters"][i]) for i in (2, 4))
    size = min(rows_written, replay.capacity)
    for name in _ROWS:
        ours, theirs = getattr(replay, name), data[name]
        rows = min(size, len(ours))
        if theirs.shape != (rows, *ours.shape[1:]) or theirs.dtype != ours.dtype:
            return False
    links = [data[name] for name in ("next_row", "prev_row")]
    if not all(((rows >= -1) & (rows < replay.capacity)).all() for rows in links):
        return False
    lanes = [data[name] for name in ("lane_ids", "lane_steps", "lane_sizes")]
    return (
        num_valid == np.count_nonzero(data["valid"])
        and len({len(lane) for lane in lanes}) == 1
        and data["lane_sizes"].sum() == len(data["lane_rows"])
        and bool((data["lane_rows"] < rows_written).all())
    )
