"""A replay as bytes, for checkpoints: chunks of rows, of which few change between two, and a small state."""

from __future__ import annotations

import io
import json
import zlib
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from tdmpc_ray.core.replay.prioritized import PrioritizedReplay
from tdmpc_ray.core.replay.ring import Lane
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.errors import UserError

_ROWS = ("obs", "vector", "action", "reward", "terminated", "next_row", "prev_row", "task")
_BITS = ("valid", "torn")  # they flip long after their row was written, so they are kept apart from it


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The same arrays give the same bytes, which `.npz` files with their dates do not."""
    file = io.BytesIO()
    names = json.dumps(list(arrays)).encode()
    for array in (np.frombuffer(names, np.uint8), *arrays.values()):
        np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    return file.getvalue()


def unpack_arrays(data: bytes) -> dict[str, np.ndarray]:
    """What `pack_arrays` was given.

    Raises:
        ValueError: these are other bytes.
    """
    file = io.BytesIO(data)
    names = json.loads(np.lib.format.read_array(file, allow_pickle=False).tobytes())
    return {name: np.lib.format.read_array(file, allow_pickle=False) for name in names}


def pack_chunk(replay: SequenceReplay, index: int) -> bytes:
    """The rows of a chunk that have been written so far."""
    first = index * replay.chunk_rows
    rows = slice(first, min(first + replay.chunk_rows, len(replay)))
    return pack_arrays({name: getattr(replay, name)[rows] for name in _columns(replay)})


def unpack_chunk(replay: SequenceReplay, first: int, data: bytes) -> int:
    """Write the rows of a chunk to `first` and those that follow it; returns their number.

    Raises:
        UserError: they are of another shape.
    """
    columns = unpack_arrays(data)
    num = len(columns["obs"])
    for name in ("vector", "extra"):  # which other checkpoints do not have
        columns.setdefault(name, np.empty((num, 0), np.float32))
    if first + num > replay.capacity:
        raise _other_rows(first + num, replay)
    for name in (*_ROWS, "extra"):
        ours, theirs = getattr(replay, name), columns[name]
        rows = slice(first, first + num)
        if theirs.shape != ours[rows].shape or theirs.dtype != ours.dtype:
            raise UserError(
                f"the checkpoint's replay has {name} of {_kind(theirs)}, this run's has {_kind(ours)}: "
                "start it with the task and the settings of the checkpoint"
            )
        ours[rows] = theirs
    return num


def _columns(replay: SequenceReplay) -> tuple[str, ...]:
    """Those of a chunk; runs whose agent keeps nothing extra write no column for it."""
    return (*_ROWS, "extra") if replay.extra.shape[1] else _ROWS


def _other_rows(num: int, replay: SequenceReplay) -> UserError:
    return UserError(
        f"the checkpoint's replay has {num:,} rows, this run's has {replay.capacity:,}: start it with the "
        "total_steps and the settings of the checkpoint"
    )


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape[1:]}"


def forget_rows(replay: SequenceReplay, first: int, num: int) -> None:
    """Give up rows whose content is gone: no sequence that reaches into them is drawn any more."""
    lost = np.zeros(replay.capacity, np.bool_)
    lost[first : first + num] = True
    replay.next_row[lost] = -1
    ahead = back = np.arange(len(replay))
    reaches = lost[: len(replay)].copy()
    for _ in range(replay.horizon):
        ahead = np.where(ahead >= 0, replay.next_row[ahead], -1)
        reaches |= (ahead >= 0) & lost[ahead]
    if replay.num_frames > 1:
        replay.prev_row[lost] = np.flatnonzero(lost)
        for _ in range(replay.num_frames - 1):
            back = replay.prev_row[back]
            replay.torn[: len(replay)] |= lost[back]
        reaches |= replay.torn[: len(replay)]
    replay._retire(np.flatnonzero(reaches & replay.valid[: len(replay)]))
    replay.changed[first // replay.chunk_rows] = True
    replay.lanes = {
        key: lane
        for key, lane in replay.lanes.items()
        if not lost[[row % replay.capacity for row in lane.tail]].any()
    }


def pack_state(replay: SequenceReplay, extra: Mapping[str, np.ndarray]) -> bytes:
    """All that is not in the chunks: counters, open episodes, flags and priorities.

    Args:
        replay: of which.
        extra: more arrays to keep with it, by other names than `unpack_state` reads.
    """
    lanes = list(replay.lanes.items())
    tails = [np.array(lane.tail, np.int64) for _, lane in lanes]
    state: dict[str, np.ndarray] = {
        "shape": np.array([replay.asked_capacity, replay.horizon]),
        "rows": np.array(replay.capacity),
        "allow_short": np.array(replay.allow_short),
        "left_out": np.array(replay.left_out),
        "counters": np.array([replay.rows_written, replay.transitions_added, replay.num_valid]),
        "lane_ids": np.array([key for key, _ in lanes], np.str_),
        "lane_steps": np.array([lane.step for _, lane in lanes], np.int64),
        "lane_sizes": np.array([len(tail) for tail in tails], np.int64),
        "lane_rows": np.concatenate(tails) if tails else np.empty(0, np.int64),
    }
    for name in _BITS:
        bits = np.packbits(getattr(replay, name)[: len(replay)])
        state[name] = np.frombuffer(zlib.compress(bits.tobytes(), 1), np.uint8)  # nearly all alike
    if isinstance(replay, PrioritizedReplay):
        state |= {"priorities": replay.priorities, "largest": np.array(replay.largest)}
    return pack_arrays({**state, **extra})


def unpack_state(replay: SequenceReplay, data: bytes) -> dict[str, Any]:
    """Restore what `pack_state` wrote, after the chunks; returns all its arrays.

    Raises:
        UserError: it is of a replay of another size or kind.
    """
    state = unpack_arrays(data)
    theirs, ours = tuple(state["shape"].tolist()), (replay.asked_capacity, replay.horizon)
    if theirs != ours:
        raise UserError(
            f"the checkpoint's replay has (data.capacity, planner.horizon) {theirs}, this run's has {ours}: "
            "start it with the settings of the checkpoint"
        )
    if state.get("allow_short", False) and not replay.allow_short:
        raise UserError(
            "the checkpoint's replay is that of an episodic model, this run's is not: start it with the "
            "model.episodic of the checkpoint"
        )
    rows, written = int(state.get("rows", theirs[0])), int(state["counters"][0])
    if rows != replay.capacity and written > min(rows, replay.capacity):  # a ring that has begun anew
        raise _other_rows(rows, replay)
    replay.rows_written, replay.transitions_added, replay.num_valid = state["counters"].tolist()
    replay.left_out = int(state.get("left_out", 0))  # older checkpoints say nothing of it
    for name in _BITS:
        column = getattr(replay, name)
        size = min(len(replay), len(column))
        column[:size] = unpack_bits(state[name], size)
        column[size:] = False  # what lay there before is gone
    if isinstance(replay, PrioritizedReplay):
        if "priorities" in state:
            replay.restore_priorities(state["priorities"], float(state["largest"]))
        else:  # of a run that drew uniformly
            replay.restore_priorities(replay.valid[: len(replay)].astype(np.float64), 1.0)
    tails = np.split(state["lane_rows"], np.cumsum(state["lane_sizes"])[:-1])
    replay.lanes = {
        str(key): Lane(int(step), deque(tail.tolist(), maxlen=replay.horizon + 1))
        for key, step, tail in zip(state["lane_ids"], state["lane_steps"], tails, strict=False)
    }
    if replay.allow_short and not state.get("allow_short", False):
        _start_everywhere(replay)
    return state


def unpack_bits(packed: np.ndarray, size: int) -> np.ndarray:
    """The first flags of what `pack_state` made of a column of them, (size,)."""
    bits = np.frombuffer(zlib.decompress(packed.tobytes()), np.uint8)
    return np.unpackbits(bits, count=size).astype(np.bool_)


def _start_everywhere(replay: SequenceReplay) -> None:
    """Make starts of the transitions that end whole sequences: whoever saved them drew no others."""
    rows = np.flatnonzero(replay.valid)
    for _ in range(replay.horizon - 1):
        rows = replay.next_row[rows].astype(np.int64)
        replay._enlist(rows[~replay.valid[rows]])
