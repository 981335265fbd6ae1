"""Whole episodes of one task as the columns of one file, which readers map into memory.

Row t of an episode has obs[t], and of what followed it action[t], reward[t] and terminated[t]; an episode of
T steps has T + 1 rows, and nothing followed the last. `to_go` says how many steps of its episode follow a row
(as far as 16 bits count), which is all that it takes to draw sequences: no index of episodes has to be read.
"""

from __future__ import annotations

import io
import json
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tdmpc_ray.core.replay.chunks import pack_arrays
from tdmpc_ray.datasets.chunk_store import DamagedCheckpoint
from tdmpc_ray.datasets.episode import Episode

MOST_TO_GO = np.iinfo(np.uint16).max
Columns = dict[str, NDArray[np.generic]]


def pack_episodes(episodes: Sequence[Episode], *, half: bool, num_frames: int) -> bytes:
    """The content of a chunk's file.

    Args:
        episodes: of one task.
        half: keep numbers in half precision.
        num_frames: in each observation of stacked images, of which the newest is kept; 1 for vectors.
    """
    kind = np.float16 if half else np.float32
    parts: dict[str, list[NDArray[np.generic]]] = {}
    for episode in episodes:
        steps = len(episode)
        channels = episode.obs.shape[1] // num_frames
        is_image = episode.obs.dtype == np.uint8
        columns: Columns = {
            "obs": episode.obs[:, -channels:] if is_image else episode.obs.astype(kind),
            "action": np.pad(episode.action, ((0, 1), (0, 0))).astype(kind),
            "reward": np.pad(episode.reward, (0, 1)).astype(np.float32),
            "terminated": np.arange(steps + 1) == (steps - 1 if episode.terminated else -1),
            "to_go": np.minimum(np.arange(steps, -1, -1), MOST_TO_GO).astype(np.uint16),
            "length": np.array([steps], np.int32),
            "return": np.array([episode.reward.sum(dtype=np.float64)], np.float32),
            "success": np.array([-1 if episode.success is None else episode.success], np.int8),
        }
        if episode.vector is not None:
            columns["vector"] = episode.vector.astype(kind)
        for name, column in columns.items():
            parts.setdefault(name, []).append(column)
    return pack_arrays({name: np.concatenate(columns) for name, columns in parts.items()})


def map_chunk(file: Path) -> tuple[Columns, mmap.mmap]:
    """The columns of a chunk as views of its file, and the mapping; what is read of them comes into memory.

    Raises:
        DamagedCheckpoint: the file is missing, or shorter than it was written.
    """
    try:
        with file.open("rb") as stream:
            view = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            head = io.BytesIO(view[: 1 << 12])
            names = json.loads(np.lib.format.read_array(head, allow_pickle=False).tobytes())
            columns, start = {}, head.tell()
            for name in names:
                head = io.BytesIO(view[start : start + (1 << 12)])
                np.lib.format.read_magic(head)
                shape, _, kind = np.lib.format.read_array_header_1_0(head)
                count, begin = int(np.prod(shape)), start + head.tell()
                columns[name] = np.frombuffer(view, kind, count, begin).reshape(shape)
                start = begin + count * kind.itemsize
    except FileNotFoundError:
        raise DamagedCheckpoint(f"{file} is missing") from None
    except (OSError, ValueError, KeyError) as error:
        raise DamagedCheckpoint(f"{file} is damaged: {error}") from None
    return columns, view
