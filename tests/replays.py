"""What tests of replays share."""

from __future__ import annotations

from tdmpc_ray.core.replay.chunks import pack_chunk, pack_state, unpack_chunk, unpack_state
from tdmpc_ray.core.replay.sequences import SequenceReplay


def copy_into(source: SequenceReplay, target: SequenceReplay) -> SequenceReplay:
    """Through the bytes of a checkpoint."""
    for index in range(-(-len(source) // source.chunk_rows)):
        unpack_chunk(target, index * source.chunk_rows, pack_chunk(source, index))
    unpack_state(target, pack_state(source, {}))
    return target
