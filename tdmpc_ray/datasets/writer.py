"""Adds episodes to a dataset's folder: chunk by chunk, the manifest at the end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pyarrow.fs import LocalFileSystem

from tdmpc_ray import __version__
from tdmpc_ray.datasets.chunk import pack_episodes
from tdmpc_ray.datasets.chunk_store import ChunkStore, write_whole
from tdmpc_ray.datasets.episode import Episode
from tdmpc_ray.datasets.manifest import MANIFEST_FILE, Manifest, Part, Source, TaskEntry, read_manifest
from tdmpc_ray.envs.images import FRAMES
from tdmpc_ray.errors import UserError

CHUNKS = "chunks"
_CHUNK_BYTES = 64 << 20
_ALL_BYTES = 1 << 30  # of all tasks together that wait to fill a chunk
_LOCK = ".lock"


@contextmanager
def writing(folder: Path, *, half: bool | None = None) -> Iterator[DatasetWriter]:
    """Within, episodes can be added; at the end they are in the dataset, after an error none of them is.

    Args:
        folder: a dataset, which grows, or a new or empty folder.
        half: numbers in half precision; None: as the dataset has them, float32 in a new one.

    Raises:
        UserError: the folder holds something else, another process writes, or it has other precision.
    """
    is_new = not (folder / MANIFEST_FILE).exists()
    if is_new and folder.is_dir() and any(path.name != _LOCK for path in folder.iterdir()):
        raise UserError(f"{folder} holds something else: choose a new folder")
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK, timeout=0).acquire()
    except Timeout:
        raise UserError(f"{folder} is in use: another process adds to this dataset") from None
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
    with lock:
        try:
            manifest = Manifest(tdmpc_ray=__version__, half=bool(half)) if is_new else read_manifest(folder)
            if half is not None and manifest.half != half:
                kind = "half" if manifest.half else "single"
                raise UserError(f"{folder} is in {kind} precision: a dataset has one")
            writer = DatasetWriter(folder, manifest)
            yield writer
            writer.finish()
        except BaseException:
            _take_back(folder, is_new)
            raise
    if made:
        (folder / _LOCK).unlink(missing_ok=True)


def _take_back(folder: Path, is_new: bool) -> None:
    """Remove what no manifest names."""
    if is_new:
        shutil.rmtree(folder / CHUNKS, ignore_errors=True)
        (folder / _LOCK).unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
        return
    kept = {part.chunk for part in read_manifest(folder).parts}
    _store(folder).collect(kept)


def _store(folder: Path) -> ChunkStore:
    return ChunkStore(LocalFileSystem(), str(folder / CHUNKS))


class DatasetWriter:
    """Fills chunks; use `writing`.

    Args:
        folder: of the dataset.
        manifest: as it is so far; grows.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder, self.manifest, self._store = folder, manifest, _store(folder)
        self._waiting: dict[tuple[int, int], list[Episode]] = {}  # by task and source
        self._bytes: dict[tuple[int, int], int] = {}

    def begin(self, source: Source) -> int:
        """A source, by which `add` knows it.

        Raises:
            UserError: it is in the dataset already.
        """
        if source.place in {one.place for one in self.manifest.sources}:
            raise UserError(f"{source.place} is in {self._folder} already")
        self.manifest.sources.append(source)
        return len(self.manifest.sources) - 1

    def add(self, episode: Episode, source: int, task: str) -> None:
        """An episode of a task.

        Raises:
            UserError: it is none, or not like the others of its task.
        """
        episode.check()
        key = (self._task(episode, task), source)
        self._waiting.setdefault(key, []).append(episode)
        size = episode.obs.nbytes + episode.action.nbytes + episode.reward.nbytes
        self._bytes[key] = self._bytes.get(key, 0) + size
        if self._bytes[key] > _CHUNK_BYTES:
            self._write(key)
        elif sum(self._bytes.values()) > _ALL_BYTES:
            self._write(max(self._bytes, key=self._bytes.__getitem__))

    def finish(self) -> None:
        """Write what waits, and the manifest.

        Raises:
            UserError: there is nothing in it; it cannot be written.
        """
        for key in list(self._waiting):
            self._write(key)
        if not self.manifest.parts:
            raise UserError("there is no episode to put into a dataset")
        text = self.manifest.model_dump_json(indent=1) + "\n"
        write_whole(LocalFileSystem(), str(self._folder / MANIFEST_FILE), text.encode())

    def _task(self, episode: Episode, name: str) -> int:
        vector_dim = 0 if episode.vector is None else episode.vector.shape[1]
        shape = list(episode.obs.shape[1:])
        entry = TaskEntry(
            name=name, obs_shape=shape, action_dim=episode.action.shape[1], vector_dim=vector_dim
        )
        known = self.manifest.of_task(name)
        if known is None:
            self.manifest.tasks.append(entry)
            return len(self.manifest.tasks) - 1
        if known != entry:
            raise UserError(
                f"{episode.source} observes {shape} and acts by {entry.action_dim} numbers, others of task "
                f"'{name}' {known.obs_shape} and {known.action_dim}"
            )
        return self.manifest.tasks.index(known)

    def _write(self, key: tuple[int, int]) -> None:
        episodes, task = self._waiting.pop(key), self.manifest.tasks[key[0]]
        del self._bytes[key]
        data = pack_episodes(episodes, half=self.manifest.half, num_frames=FRAMES if task.is_images else 1)
        steps = sum(map(len, episodes))
        self.manifest.parts.append(
            Part(
                chunk=self._store.put(data),
                task=key[0],
                source=key[1],
                rows=steps + len(episodes),
                episodes=len(episodes),
                steps=steps,
            )
        )
