"""A replay and what of it lies in a store of chunks already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tdmpc_ray.core.replay.chunks import (
    forget_rows,
    pack_arrays,
    pack_chunk,
    pack_state,
    unpack_arrays,
    unpack_chunk,
    unpack_state,
)
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.datasets.chunk_store import ChunkStore, DamagedCheckpoint
from tdmpc_ray.errors import UserError


class NothingSaved:
    """In the place of a `SavedReplay`, where what is learned from lies in files of its own."""

    def save(self, store: ChunkStore, extra: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Write `extra`; see `SavedReplay.save`."""
        return {"chunks": [], "state": store.put(pack_arrays(extra)), "transitions": 0}

    def load(
        self, store: ChunkStore, manifest: Mapping[str, Any], salvage: bool = False
    ) -> tuple[dict[str, np.ndarray], list[str]]:
        """Read `extra`; see `SavedReplay.load`.

        Raises:
            UserError: the checkpoint is of a run that took steps.
        """
        if manifest["chunks"]:
            raise UserError(
                "the checkpoint is of a run that took steps, this one learns from a dataset alone: begin "
                "with its networks (start_from)"
            )
        return unpack_arrays(store.get(manifest["state"])), []


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

    def load(
        self, store: ChunkStore, manifest: Mapping[str, Any], salvage: bool = False
    ) -> tuple[dict[str, np.ndarray], list[str]]:
        """Restore what `save` wrote.

        Args:
            store: where it wrote it.
            manifest: what it returned.
            salvage: leave out the rows of chunks that are missing or damaged.

        Returns:
            The arrays of `extra`, among others; what was left out, a line for each chunk.

        Raises:
            DamagedCheckpoint: a chunk is missing or damaged; the replay is empty then.
            UserError: it is of a replay of another shape.
        """
        replay, names = self._replay, list(manifest["chunks"])
        replay.clear()
        first, whole = 0, True
        lost: list[tuple[int, DamagedCheckpoint]] = []
        for name in names:
            whole = whole and first % replay.chunk_rows == 0
            try:
                first += unpack_chunk(replay, first, store.get(name))
            except DamagedCheckpoint as error:
                if not (salvage and whole):
                    raise
                lost.append((first, error))
                first += replay.chunk_rows
        state = unpack_state(replay, store.get(manifest["state"]))
        fits = whole and len(names) == -(-len(replay) // replay.chunk_rows)
        if lost and not fits:  # chunks of another length: where the lost rows were cannot be told
            replay.clear()
            raise lost[0][1]
        self._names = names if fits else []
        replay.changed[:] = False
        said = []
        for start, damage in lost:
            rows = min(replay.chunk_rows, len(replay) - start)
            forget_rows(replay, start, rows)
            said.append(f"{damage}; its {rows:,} rows of the replay are left out")
        return state, said
