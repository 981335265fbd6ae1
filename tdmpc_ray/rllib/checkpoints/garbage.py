"""Deletes the chunks of replays that no checkpoint of an experiment names any more."""

from __future__ import annotations

import logging
import time
from typing import Any

from pyarrow.fs import FileSelector, FileSystem, FileType
from ray import tune
from ray.tune.experiment import Trial

from tdmpc_ray.datasets.chunk_store import ChunkStore, DamagedCheckpoint
from tdmpc_ray.rllib.checkpoints.manifest import MANIFEST, REPLAY_FOLDER, chunk_names, parse_manifest

logger = logging.getLogger(__name__)
_SHARE = 0.01  # of the driver's time that may go into this


class CollectReplays(tune.Callback):
    """For the `RunConfig` of every experiment with TDMPC2 trials whose checkpoints Tune deletes.

    Works while no trial saves or restores: only then every chunk in use is named by a checkpoint. All saving
    and restoring is begun by the process that this runs in.

    Args:
        every_s: seconds between two collections, at least.
    """

    def __init__(self, every_s: float = 60.0) -> None:
        self._every_s = every_s
        self._next_at = 0.0

    def on_trial_save(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if time.monotonic() >= self._next_at:
            self._collect(trials)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        self._collect(trials)

    def _collect(self, trials: list[Trial]) -> None:
        if not trials or any(trial.is_saving or trial.is_restoring for trial in trials):
            return
        storage, started = trials[0].storage, time.monotonic()
        try:
            collect_replays(storage.storage_filesystem, storage.experiment_fs_path)
        except OSError as error:  # where a checkpoint may be unread, nothing is deleted
            logger.warning("replays of old checkpoints stay in %s: %s", storage.experiment_fs_path, error)
        now = time.monotonic()
        self._next_at = now + max(self._every_s, (now - started) / _SHARE)


def collect_replays(filesystem: FileSystem, experiment: str) -> int:
    """Delete what no checkpoint of an experiment needs; returns the bytes that this freed.

    Args:
        filesystem: pyarrow's.
        experiment: the folder of Tune's experiment: trials' folders with checkpoints, and the chunks.

    Raises:
        OSError: a folder or file cannot be read; nothing is deleted then.
    """
    kept: set[str] = set()
    for trial in _folders(filesystem, experiment):
        for checkpoint in _folders(filesystem, trial):
            try:
                with filesystem.open_input_stream(f"{checkpoint}/{MANIFEST}") as stream:
                    kept |= chunk_names(parse_manifest(stream.read(), checkpoint))
            except (FileNotFoundError, DamagedCheckpoint):
                continue  # it cannot be restored, so it needs nothing
    return ChunkStore(filesystem, f"{experiment}/{REPLAY_FOLDER}").collect(kept)


def _folders(filesystem: FileSystem, parent: str) -> list[str]:
    found = filesystem.get_file_info(FileSelector(parent, allow_not_found=True))
    return [i.path for i in found if i.type == FileType.Directory and i.base_name != REPLAY_FOLDER]
