"""Checkpoints that hold the replay, tell when they are damaged, and whose failure ends no run."""

from __future__ import annotations

import contextlib
import itertools
import os
import posixpath
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, copy_files
from ray import tune
from ray.rllib.algorithms.algorithm import Algorithm
from ray.tune import Checkpoint

from tdmpc_ray.addresses import absolute
from tdmpc_ray.datasets.chunk_store import CannotWrite, ChunkStore, DamagedCheckpoint
from tdmpc_ray.errors import UserError, reason
from tdmpc_ray.rllib.checkpoints.manifest import (
    REPLAY_FOLDER,
    chunk_names,
    find_store,
    read_manifest,
    seal,
    verify,
)
from tdmpc_ray.rllib.checkpoints.open_folder import open_folder
from tdmpc_ray.rllib.metrics.activity import doing

# From a trial's checkpoint to the chunks that all trials of an experiment share.
_SHARED_STORE = f"../../{REPLAY_FOLDER}"


class DurableAlgorithm(Algorithm):
    """An RLlib algorithm with a replay in its learners.

    Under Tune, which deletes and copies checkpoints, all trials of an experiment keep their replays' chunks
    in one folder beside the trials', and checkpoints only name them; `CollectReplays` deletes the chunks that
    none names any more. Elsewhere a checkpoint has its chunks within.

    Attributes:
        link: to the learners, see `loop.learner_link`.
    """

    link: Any
    _tune_saves = False
    _salvages = False

    def tell(self, line: str) -> None:
        """A line for the user, which the next result takes along."""

    def settle(self) -> None:
        """Before saving: bring everything that is under way to its end."""

    def discard(self) -> None:
        """Before restoring: drop everything that is under way."""

    def saved(self, checkpoint: Path) -> None:
        """After saving, with the checkpoint in a local folder: add what is no part of the state."""

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Tune's: where the checkpoint cannot be written, training goes on without it."""
        storage = self._storage
        if storage is None:
            return super().save(checkpoint_dir)
        before, index, self._tune_saves = storage.checkpoint_fs_path, storage.current_checkpoint_index, True
        try:
            with tempfile.TemporaryDirectory() as folder, doing(self.trial_id, "saving"):
                return super().save(checkpoint_dir or folder)
        except (OSError, CannotWrite) as error:
            self.tell(
                f"no checkpoint at {self.env_steps:,} steps: {reason(error)}; the run goes on, "
                "and saves again when its next checkpoint is due"
            )
            if storage.checkpoint_fs_path != before:
                with contextlib.suppress(OSError):
                    storage.storage_filesystem.delete_dir(storage.checkpoint_fs_path)
                # As Tune's own: with more, a restarted trial would write over checkpoints that Tune keeps.
                storage.current_checkpoint_index = index
            return tune.trainable.trainable._TrainingResult(checkpoint=None, metrics={})
        finally:
            self._tune_saves = False

    def save_to_path(self, path: Any = None, *args: Any, **kwargs: Any) -> str:
        """Save a checkpoint: RLlib's files, the replay's chunks, and a manifest with the hashes of all.

        Args:
            path: a folder, or an address such as `s3://bucket/folder`; None: a new temporary folder.
            args: RLlib's, and `kwargs`.

        Raises:
            CannotWrite: a learner cannot write its replay; OSError: the rest cannot be written.
            UserError: a learner on another machine writes to another disk.
        """
        path = tempfile.mkdtemp(prefix="tdmpc_ray-") if path is None else path
        filesystem, folder = _place(path, kwargs.pop("filesystem", None))
        if self._tune_saves:
            storage = self._storage
            relative = _SHARED_STORE
            store = ChunkStore(storage.storage_filesystem, f"{storage.experiment_fs_path}/{REPLAY_FOLDER}")
        else:
            relative, store = REPLAY_FOLDER, ChunkStore(filesystem, f"{folder}/{REPLAY_FOLDER}")
        self.settle()
        with _local(filesystem, folder) as local:
            super().save_to_path(local, *args, **kwargs)
            each = [{"store": store}] * self.link.num_learners
            shards = self.link.call_each(self.config.learner_class.save_replay, each)
            if store.missing([shard["state"] for shard in shards]):
                raise UserError(
                    f"the learner wrote its replay to {store.folder} on another machine: "
                    "give a folder or an address that all machines share"
                )
            seal(Path(local), relative, store.folder, shards)
            self.saved(Path(local))
            if local != folder:
                copy_files(local, folder, destination_filesystem=filesystem)
            if not self._tune_saves:  # what an earlier save to the same folder has left
                store.collect(chunk_names(read_manifest(Path(local))))
        return str(path)

    def restore(self, checkpoint_path: Any) -> None:
        """Tune's: from the checkpoint given, or, where that is damaged or gone, the nearest whole one.

        Where none is whole, from the newest whose networks are, without the damaged part of the replay.
        """
        result = checkpoint_path
        if isinstance(result, (str, os.PathLike)):
            result = Checkpoint.from_directory(result)
        if isinstance(result, Checkpoint):
            result = tune.trainable.trainable._TrainingResult(checkpoint=result, metrics={})
        damaged: list[DamagedCheckpoint] = []
        candidates = (result.checkpoint, *_others(result.checkpoint))
        # Checkpoints share chunks, so one may be damaged in all of them: then without it.
        for salvages, checkpoint in itertools.product((False, True), candidates):
            self._salvages = salvages
            try:
                _require_folder(checkpoint)
                super().restore(type(result)(checkpoint=checkpoint, metrics=result.metrics))
            except DamagedCheckpoint as error:
                damaged.append(error)
                continue
            finally:
                self._salvages = False
            if not salvages:
                for one in damaged:
                    self.tell(f"{one}; {Path(checkpoint.path).name} is used")
            return
        raise damaged[0]

    @classmethod
    def from_checkpoint(cls, path: Any, filesystem: FileSystem | None = None, **kwargs: Any) -> Any:
        """RLlib's, which would take a relative path for an address."""
        if filesystem is None and isinstance(path, (str, os.PathLike)):
            path = absolute(os.fspath(path))
        return super().from_checkpoint(path, filesystem, **kwargs)

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """Load a checkpoint that `save_to_path` wrote, with its replay.

        Raises:
            DamagedCheckpoint: names the file that is missing or damaged.
            UserError: it is of a run with other settings.
        """
        if "component" in kwargs:
            super().restore_from_path(path, *args, **kwargs)
            return
        filesystem, folder = _place(path, kwargs.pop("filesystem", None))
        with _local(filesystem, folder, download=True) as local:
            manifest = verify(Path(local))
            shards = manifest["replay"]["shards"]
            if len(shards) != self.link.num_learners:
                raise UserError(
                    f"the checkpoint's replay is that of {len(shards)} learners, this run has "
                    f"{self.link.num_learners}: set num_learners={len(shards)}"
                )
            store = find_store(manifest, self._stores(filesystem, folder, manifest["replay"]))
            self.discard()
            super().restore_from_path(local, *args, **kwargs)
        each = [{"store": store, "manifest": shard, "salvage": self._salvages} for shard in shards]
        for line in itertools.chain(*self.link.call_each(self.config.learner_class.load_replay, each)):
            self.tell(line)

    def _stores(self, filesystem: FileSystem, folder: str, replay: dict[str, Any]) -> list[ChunkStore]:
        """Where a checkpoint's chunks may be: relative to it, in this experiment, or where they once were."""
        stores = [ChunkStore(filesystem, posixpath.normpath(f"{folder}/{replay['store']}"))]
        if storage := self._storage:  # of a checkpoint that Tune has downloaded
            shared = f"{storage.experiment_fs_path}/{REPLAY_FOLDER}"
            stores.append(ChunkStore(storage.storage_filesystem, shared))
        return [*stores, ChunkStore(filesystem, replay["place"])]


def _place(path: Any, filesystem: FileSystem | None) -> tuple[FileSystem, str]:
    """The file system of a path or address, and the path on it."""
    return open_folder(path) if filesystem is None else (filesystem, str(path))


@contextlib.contextmanager
def _local(filesystem: FileSystem, folder: str, *, download: bool = False) -> Iterator[str]:
    """A local folder that stands for `folder`: itself, or a temporary one."""
    if isinstance(filesystem, LocalFileSystem):
        yield folder
        return
    with tempfile.TemporaryDirectory() as local:
        if download:
            for info in filesystem.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True)):
                name = posixpath.relpath(info.path, folder)
                if info.type == FileType.File and not name.startswith(f"{REPLAY_FOLDER}/"):
                    os.makedirs(os.path.dirname(f"{local}/{name}"), exist_ok=True)
                    copy_files(info.path, f"{local}/{name}", filesystem, LocalFileSystem())
        yield local


def _require_folder(checkpoint: Checkpoint) -> None:
    if checkpoint.filesystem.get_file_info(str(checkpoint.path)).type == FileType.NotFound:
        raise DamagedCheckpoint(f"{checkpoint.path} is missing")


def _others(checkpoint: Checkpoint) -> list[Checkpoint]:
    """The checkpoints beside this one that may stand in for it, by Tune's numbers.

    Those before it, newest first. Where it is gone, those after it come before them: a trial of PBT that
    another one goes on from may have saved, and deleted, since.
    """
    parent, name = posixpath.split(str(checkpoint.path).rstrip("/"))
    beside = checkpoint.filesystem.get_file_info(FileSelector(parent, allow_not_found=True))
    names = sorted(
        info.base_name
        for info in beside
        if info.type == FileType.Directory and info.base_name.startswith("checkpoint_")
    )
    later = [n for n in names if n > name and name not in names]
    earlier = [n for n in reversed(names) if n < name]
    return [Checkpoint(f"{parent}/{n}", filesystem=checkpoint.filesystem) for n in (*later, *earlier)]
