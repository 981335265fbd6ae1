"""Immutable pieces of data in one folder, each named by the hash of what it holds.

The same data is kept once, whichever checkpoint of whichever trial names it, and what was damaged or half
written shows when it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem

from tdmpc_ray.errors import PassingError, reason

_PART = ".part"
_ATTEMPTS = 4  # at reading from another machine; 7 s in all
_PARALLEL = 32  # questions to another machine at once
_PART_S = 3600.0  # an older one belongs to a process that has died


class DamagedCheckpoint(PassingError):
    """A file of a checkpoint is missing, or is not what was written; the message names it."""


class CannotWrite(PassingError):
    """A disk that is full, most likely. Not an `OSError`, for which RLlib would end a learner's process."""


@dataclass(frozen=True)
class ChunkStore:
    """A folder of chunks.

    Args:
        filesystem: pyarrow's: local, S3, or any of fsspec's behind `FSSpecHandler`.
        folder: on it; made with the first chunk.
    """

    filesystem: FileSystem
    folder: str

    def put(self, data: bytes) -> str:
        """Keep `data`, unless it is there; returns its name.

        Raises:
            CannotWrite: says why.
        """
        name = hashlib.sha256(data).hexdigest()
        if self._info([name])[0].size != len(data):
            try:
                write_whole(self.filesystem, self._path(name), data)
            except OSError as error:
                raise CannotWrite(f"cannot write to {self.folder}: {reason(error)}") from None
        return name

    def get(self, name: str) -> bytes:
        """The data of this name.

        Raises:
            DamagedCheckpoint: it is missing, or other data.
        """
        return read_checked(self.filesystem, self._path(name), name)

    def missing(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that are not there."""
        found = self._info(names)
        return {name for name, info in zip(names, found, strict=True) if info.type == FileType.NotFound}

    def collect(self, kept: Collection[str]) -> int:
        """Delete all chunks but those of `kept`; returns the bytes that this freed.

        Nothing may be written meanwhile that `kept` does not name yet.
        """
        freed, oldest = 0, time.time() - _PART_S
        for info in self.filesystem.get_file_info(FileSelector(self.folder, allow_not_found=True)):
            name = info.base_name
            is_part = name.endswith(_PART) and (info.mtime is None or info.mtime.timestamp() > oldest)
            if info.type == FileType.File and name not in kept and not is_part:
                self.filesystem.delete_file(info.path)
                freed += info.size or 0
        return freed

    def _path(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def _info(self, names: Sequence[str]) -> list[FileInfo]:
        paths = [self._path(name) for name in names]
        if isinstance(self.filesystem, LocalFileSystem) or len(paths) < 2:
            return list(self.filesystem.get_file_info(paths))
        with ThreadPoolExecutor(_PARALLEL) as pool:  # each takes a way there and back
            return list(pool.map(self.filesystem.get_file_info, paths))


def write_whole(filesystem: FileSystem, path: str, data: bytes) -> None:
    """Write a file that is there as a whole or not at all, also after the machine went down.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    if not isinstance(filesystem, LocalFileSystem):  # object stores show a file when it is complete
        try:
            stream = filesystem.open_output_stream(path)
        except FileNotFoundError:  # it has folders, like disks
            filesystem.create_dir(path.rpartition("/")[0], recursive=True)
            stream = filesystem.open_output_stream(path)
        with stream:
            stream.write(data)
        return
    file, part = Path(path), f"{path}.{uuid.uuid4().hex}{_PART}"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(part, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def read_checked(filesystem: FileSystem, path: str, sha256: str) -> bytes:
    """The content of a file.

    Raises:
        DamagedCheckpoint: it is missing, or has another hash.
        UserError: another machine does not give it, though it may be there.
    """
    for attempt in range(_ATTEMPTS):
        try:
            with filesystem.open_input_stream(path) as stream:
                data: bytes = stream.read()
            break
        except FileNotFoundError:
            raise DamagedCheckpoint(f"{path} is missing") from None
        except OSError as error:
            if isinstance(filesystem, LocalFileSystem):  # the disk itself
                raise DamagedCheckpoint(f"{path} cannot be read ({reason(error)})") from None
            if attempt == _ATTEMPTS - 1:
                raise PassingError(f"{path} cannot be read now ({reason(error)}): try again later") from None
            time.sleep(2.0**attempt)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedCheckpoint(f"{path} is damaged: it is not what was written")
    return data
