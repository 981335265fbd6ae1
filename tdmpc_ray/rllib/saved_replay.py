"""A replay and what of it lies in a store of chunks already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tdmpc_ray.core.replay import SequenceReplay
from tdmpc_ray.core.replay_chunks import pack_chunk, pack_state, unpack_chunk, unpack_state
from tdmpc_ray.rllib.chunk_store import ChunkStore


class SavedReplay:
    """Saves a replay so that each time only the chunks are written that have changed.

    Args:
        replay: its `changed` is kept here.
    """

    def __init__(self, replay: SequenceReplay) -> None:
        self._replay = replay
        self._names: list[str] = []  # of the chunks, as last written or read

    def save(self, store: ChunkStore, extra: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Bring the store up to date.

        Args:
            store: to write to; need not be the one of the last time.
            extra: arrays to keep with the replay.

        Returns:
            A manifest, of JSON's types: the names of all chunks and of the state.

        Raises:
            CannotWrite: the next call tries again.
        """
        replay = self._replay
        num_chunks = -(-len(replay) // replay.chunk_rows)
        del self._names[num_chunks:]
        missing = store.missing(self._names)
        for index in range(num_chunks):
            is_new = index == len(self._names)
            if is_new or replay.changed[index] or self._names[index] in missing:
                self._names[index : index + 1] = [store.put(pack_chunk(replay, index))]
                replay.changed[index] = False
        state = store.put(pack_state(replay, extra))
        return {"chunks": list(self._names), "state": state, "transitions": replay.transitions_added}

    def load(self, store: ChunkStore, manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Restore what `save` wrote; returns the arrays of `extra`, among others.

        Raises:
            DamagedCheckpoint: a chunk is missing or damaged; the replay is empty then.
            UserError: it is of a replay of another shape.
        """
        replay, names = self._replay, list(manifest["chunks"])
        replay.clear()
        first, whole = 0, True
        for name in names:
            whole = whole and first % replay.chunk_rows == 0
            first += unpack_chunk(replay, first, store.get(name))
        state = unpack_state(replay, store.get(manifest["state"]))
        self._names = names if whole and len(names) == -(-first // replay.chunk_rows) else []
        replay.changed[:] = False
        return state
