"""The episodes in the replay of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyarrow.fs import LocalFileSystem

from tdmpc_ray.core.replay.chunks import unpack_arrays, unpack_bits
from tdmpc_ray.datasets.chunk_store import ChunkStore
from tdmpc_ray.datasets.episode import Episode
from tdmpc_ray.datasets.manifest import Source
from tdmpc_ray.envs import task_info, task_sizes
from tdmpc_ray.envs.images import FRAMES
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.checkpoints.load import checkpoints_below, load_module
from tdmpc_ray.rllib.checkpoints.manifest import (
    REPLAY_FOLDER,
    find_store,
    is_complete,
    read_manifest,
    replay_shards,
)

Columns = dict[str, NDArray[Any]]
_Task = tuple[str, tuple[int, int] | None]  # name; of a set's, its own sizes, which rows are filled up from


def episodes_of(checkpoint: Path, first_steps: int | None = None) -> Iterator[Episode]:
    """What the run had in its replay when it was saved, episodes that went on as far as they were.

    Args:
        checkpoint: a local folder.
        first_steps: only so many steps, the first that the run took; None: all that the replay holds.

    Raises:
        UserError: the replay is missing, damaged, or has lost the first steps.
    """
    manifest, module = read_manifest(checkpoint), load_module(checkpoint)
    tasks, replay = _tasks(checkpoint, module.model_config["task"]), manifest["replay"]
    folders = [checkpoint / (replay["store"] or REPLAY_FOLDER), Path(replay["place"] or checkpoint)]
    store = find_store(manifest, [ChunkStore(LocalFileSystem(), str(folder.resolve())) for folder in folders])
    shards = replay["shards"]
    kept = [shard for shard in replay_shards(manifest)[len(shards) :] if shard["chunks"]]
    if kept and first_steps is not None:
        raise UserError(
            f"{checkpoint}: its run kept episodes from training (data.validation_share), and nothing tells "
            "which of its steps came first: leave --first out"
        )
    for number, shard in enumerate([*shards, *kept]):
        share = None if first_steps is None else _share(first_steps, len(shards), number)
        columns = _columns(store, shard, checkpoint, share)
        for rows in _episodes(columns, share):
            yield _episode(f"{checkpoint}, row {rows[0]} of the replay", columns, rows, tasks)


def newest_of_trials(place: Path) -> list[Path]:
    """The newest whole checkpoint of each trial at or below a folder, in the order of the trials' names.

    Raises:
        UserError: there is none.
    """
    newest: dict[Path, Path] = {}
    for path in sorted(checkpoints_below(place.absolute()) if place.is_dir() else []):
        if is_complete(path):
            newest[path.parent] = path  # Tune numbers them
    if not newest:
        raise UserError(f"no whole checkpoint in {place}: give the --out folder of a run or a study")
    return [newest[folder] for folder in sorted(newest)]


def source_of(checkpoint: Path) -> Source:
    """Where such episodes come from."""
    config = load_module(checkpoint).model_config
    shards = replay_shards(read_manifest(checkpoint))
    return Source(
        kind="run",
        place=str(checkpoint.parent),
        task=config["task"] or "",
        algorithm=config["agent"]["algorithm"],
        seed=config["seed"],
        steps=sum(shard["transitions"] for shard in shards),
    )


def _share(steps: int, num: int, number: int) -> int:
    return steps // num + (number < steps % num)


def _tasks(checkpoint: Path, task: str | None) -> list[_Task]:
    """The tasks of a run by their ids."""
    if task is None:
        raise UserError(
            f"{checkpoint} is of an environment without a name: register it as a task, so that its episodes "
            "can be told from those of other tasks"
        )
    members = task_info(task).tasks
    return [(name, task_sizes(name)) for name in members] or [(task, None)]


def _columns(store: ChunkStore, shard: dict[str, Any], checkpoint: Path, share: int | None) -> Columns:
    parts = [unpack_arrays(store.get(name)) for name in shard["chunks"]]
    if not parts:
        raise UserError(f"{checkpoint} has an empty replay")
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    state = unpack_arrays(store.get(shard["state"]))
    written, rows = int(state["counters"][0]), len(columns["next_row"])
    if share is not None and written > rows:
        raise UserError(f"{checkpoint}: its replay has lost the run's first steps; leave --first out")
    if len(columns["prev_row"]):
        columns["torn"] = unpack_bits(state["torn"], rows)
    return columns


def _episodes(columns: Columns, share: int | None) -> Iterator[Sequence[int]]:
    """The rows of each episode, or of what is left of it, the last observation's included."""
    following = columns["next_row"].astype(np.int64)
    has_next = following >= 0
    if share is not None:  # rows are in the order in which they came
        following = np.where(np.cumsum(has_next) > share, -1, following)
        has_next = following >= 0
    is_start = np.ones(len(following), bool)
    is_start[following[has_next]] = False
    nexts = following.tolist()
    torn = columns.get("torn")
    for start in np.flatnonzero(is_start & has_next).tolist():
        rows = [start]
        while nexts[rows[-1]] >= 0:
            rows.append(nexts[rows[-1]])
        if torn is not None:  # older frames of these have been overwritten
            rows = [row for row in rows if not torn[row]]
        if len(rows) > 1:
            yield rows


def _episode(source: str, columns: Columns, rows: Sequence[int], tasks: list[_Task]) -> Episode:
    steps = rows[:-1]
    name, sizes = tasks[int(columns["task"][rows[0]]) if len(columns["task"]) else 0]
    obs, action = columns["obs"][rows], columns["action"][steps]
    if sizes is not None:
        obs, action = obs[:, : sizes[0]], action[:, : sizes[1]]
    if obs.ndim == 4:
        obs = _stacks(columns, np.array(rows))
    vector = columns.get("vector")
    return Episode(
        source,
        obs,
        action,
        columns["reward"][steps],
        bool(columns["terminated"][steps[-1]]),
        vector[rows] if vector is not None and vector.shape[1] else None,
        name,
    )


def _stacks(columns: Columns, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Stacked frames, oldest first, of rows that hold the newest alone."""
    frames = [rows]
    for _ in range(FRAMES - 1):
        frames.append(columns["prev_row"][frames[-1]])
    return np.concatenate([columns["obs"][row] for row in reversed(frames)], axis=1)
