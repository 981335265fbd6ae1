"""The list of a checkpoint's files and their hashes: written last, it tells whole checkpoints from others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyarrow.fs import LocalFileSystem

from tdmpc_ray.datasets.chunk_store import ChunkStore, DamagedCheckpoint, read_checked, write_whole

MANIFEST = "manifest.json"
REPLAY_FOLDER = "replay"
HELD_OUT = "held_out"  # of a learner's manifest: that of the episodes that it keeps from training
_FORMAT = 2


def seal(checkpoint: Path, store: str = "", place: str = "", shards: Sequence[dict[str, Any]] = ()) -> None:
    """Write the manifest of a checkpoint whose other files are complete.

    Args:
        checkpoint: a local folder.
        store: the folder of the replay's chunks, relative to the checkpoint.
        place: the same folder as it is called when the checkpoint is written.
        shards: each learner's manifest of its replay.
    """
    files = [p for p in sorted(checkpoint.rglob("*")) if p.is_file() and p != checkpoint / MANIFEST]
    names = [p.relative_to(checkpoint).as_posix() for p in files]
    hashes = {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in zip(names, files, strict=True)
        if not name.startswith(f"{REPLAY_FOLDER}/")  # chunks are named by their hashes
    }
    content = {"files": hashes, "replay": {"store": store, "place": place, "shards": list(shards)}}
    text = json.dumps({"format": _FORMAT, "sha256": _digest(content), **content})
    write_whole(LocalFileSystem(), str(checkpoint / MANIFEST), text.encode())


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """The manifest of a checkpoint in a local folder.

    Raises:
        DamagedCheckpoint: it is missing, damaged, or of another version.
    """
    path = checkpoint / MANIFEST
    if not path.is_file():
        raise DamagedCheckpoint(f"{checkpoint} is not complete: it lacks {MANIFEST}, which is written last")
    return parse_manifest(path.read_bytes(), str(path))


def parse_manifest(data: bytes, path: str) -> dict[str, Any]:
    """The manifest in `data`.

    Raises:
        DamagedCheckpoint: it is damaged, or of another version; `path` is named.
    """
    try:
        manifest: dict[str, Any] = json.loads(data)
        version, sha256 = manifest.pop("format"), manifest.pop("sha256")
    except (ValueError, KeyError, AttributeError):
        raise DamagedCheckpoint(f"{path} is damaged: it is not what was written") from None
    if version != _FORMAT:
        raise DamagedCheckpoint(f"{path} is of format {version}, this version of tdmpc_ray reads {_FORMAT}")
    if _digest(manifest) != sha256:
        raise DamagedCheckpoint(f"{path} is damaged: it is not what was written")
    return manifest


def verify(checkpoint: Path, below: str = "") -> dict[str, Any]:
    """Check the files of a checkpoint in a local folder; returns its manifest.

    Args:
        checkpoint: to check; the replay's chunks are checked when they are read.
        below: only the files in this folder of it.

    Raises:
        DamagedCheckpoint: names the first file that is missing or damaged.
    """
    manifest = read_manifest(checkpoint)
    for name, sha256 in manifest["files"].items():
        if name.startswith(below):
            read_checked(LocalFileSystem(), str(checkpoint / name), sha256)
    return manifest


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint in a local folder has all its files; their content is not read."""
    try:
        return all((checkpoint / name).is_file() for name in read_manifest(checkpoint)["files"])
    except DamagedCheckpoint:
        return False


def replay_shards(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """What a checkpoint has of each learner's replay, and of the episodes that it keeps from training."""
    shards = manifest["replay"]["shards"]
    return [*shards, *(shard[HELD_OUT] for shard in shards if HELD_OUT in shard)]


def chunk_names(manifest: dict[str, Any]) -> set[str]:
    """All chunks that a checkpoint needs."""
    shards = replay_shards(manifest)
    return {name for shard in shards for name in (*shard["chunks"], shard["state"])}


def find_store(manifest: dict[str, Any], stores: Sequence[ChunkStore]) -> ChunkStore:
    """The first of `stores` that has the replay of a checkpoint.

    Raises:
        DamagedCheckpoint: none has.
    """
    states = [shard["state"] for shard in manifest["replay"]["shards"]]
    for store in stores:
        if not store.missing(states):
            return store
    raise DamagedCheckpoint(
        f"the checkpoint's replay was kept in {manifest['replay']['place']} and is not there: bring that "
        f"folder to {stores[0].folder}, or begin a new run from the checkpoint's networks (start_from)"
    )


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
