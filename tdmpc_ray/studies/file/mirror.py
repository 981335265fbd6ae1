"""A study at an address: what is not Tune's lies in a folder of this machine, copied to the address.

What waits for MLflow and the study's own files need a disk; Tune writes its part to the address by itself.
Another machine that goes on with the study begins with the copy, which is at most `BEAT_S` old.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSelector, FileSystem, FileType

from tdmpc_ray.errors import UserError, reason
from tdmpc_ray.studies.file.files import LOCK_FILE
from tdmpc_ray.studies.file.tune_folder import TUNE_FOLDER
from tdmpc_ray.studies.tracking.client import write_private
from tdmpc_ray.studies.words import shown

BEAT_S = 10.0  # between two copies, by which others see that a process is at work
OWNER_FILE = ".owner"  # who has worked on the study; another one at the address: another machine has since
_TAKEN = "another machine has gone on with the study"
_NOT_COPIED = (OWNER_FILE, LOCK_FILE)


@dataclass(frozen=True)
class Mirror:
    """The two places of a study.

    Args:
        address: as it was given.
        filesystem: pyarrow's.
        folder: the address's, on it.
        out: the folder of this machine.
    """

    address: str
    filesystem: FileSystem
    folder: str
    out: Path

    @classmethod
    def behind(cls, out: Path) -> Mirror | None:
        """The mirror whose folder here is `out`; None: that is no mirror's."""
        file = out / OWNER_FILE
        if not os.path.isfile(file):
            return None
        return replace(cls.of(_read(file.read_bytes())["address"]), out=out)

    @classmethod
    def of(cls, address: str) -> Mirror:
        """The mirror of an address; its folder here lies in `results`.

        Raises:
            UserError: it cannot be reached, or names no folder.
        """
        from tdmpc_ray.rllib.checkpoints.open_folder import open_folder  # late: RLlib takes seconds to import

        filesystem, folder = open_folder(address)
        name = posixpath.basename(folder)
        if "/" not in folder.strip("/"):
            bucket = shown(address).partition("?")[0].rstrip("/")
            raise UserError(f"{bucket} names no folder: add one, such as {bucket}/my-study")
        digest = hashlib.sha256(f"{filesystem.type_name} {folder}".encode()).hexdigest()[:8]
        return cls(address, filesystem, folder, Path(f"results/{name}-{digest}").absolute())

    def require_empty(self) -> None:
        """Refuse an address for a new study that has something in it.

        Raises:
            UserError: says so.
        """
        if self._files() or self._infos(f"{self.folder}/{TUNE_FOLDER}", recursive=False):
            raise UserError(
                f"{shown(self.address)} is not empty: continue it with `tdmpc-ray resume "
                f"{shown(self.address)}` or choose another --out"
            )

    def has(self, name: str) -> bool:
        """Whether the address has this file."""
        return bool(self.filesystem.get_file_info(f"{self.folder}/{name}").is_file)

    @contextlib.contextmanager
    def kept_up(self, say: Callable[[str], None]) -> Iterator[None]:
        """Within, the address gets what changes in the folder here; before, this what is newer there.

        Raises:
            UserError: another machine is at work on the study.
        """
        file = self.out / OWNER_FILE
        ours, theirs = _read(file.read_bytes()).get("owner") if file.is_file() else None, self._owner()
        if theirs and theirs["owner"] != ours:
            self._require_quiet(theirs)
            self._bring()
        copier = _Copier(self, ours or str(uuid.uuid4()), say)
        try:
            yield
        finally:
            copier.close()

    def _owner(self) -> dict[str, Any]:
        """Who was the last to work on the study; nothing where nobody was."""
        try:
            with self.filesystem.open_input_stream(f"{self.folder}/{OWNER_FILE}") as stream:
                return _read(stream.read())
        except FileNotFoundError:
            return {}

    def _require_quiet(self, owner: dict[str, Any]) -> None:
        if owner["beat"] is None:  # it has ended
            return
        time.sleep(2 * BEAT_S)  # clocks differ
        if self._owner() != owner:
            raise UserError(f"{shown(self.address)} is in use: {owner['host']} is running this study")

    def _bring(self) -> None:
        """Make the folder here as the address is."""
        for path in self.out.iterdir():
            if path.name != LOCK_FILE:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in self._files():
            file = self.out / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with self.filesystem.open_input_stream(f"{self.folder}/{name}") as stream:
                file.touch(mode=0o600)
                file.write_bytes(stream.read())

    def _files(self) -> list[str]:
        """The names of the files at the address that are not Tune's."""
        found = []
        for info in self._infos(self.folder, recursive=False):
            if info.type == FileType.File:
                found.append(info)
            elif info.base_name != TUNE_FOLDER:
                found += [i for i in self._infos(info.path, recursive=True) if i.type == FileType.File]
        names = [posixpath.relpath(info.path, self.folder) for info in found]
        return [name for name in names if name not in _NOT_COPIED]

    def _infos(self, folder: str, *, recursive: bool) -> list[Any]:
        return list(
            self.filesystem.get_file_info(FileSelector(folder, recursive=recursive, allow_not_found=True))
        )


def _read(data: bytes) -> dict[str, Any]:
    """An owner's file; nothing where a kill has torn it."""
    try:
        return dict(json.loads(data))
    except ValueError:
        return {}


class _Copier:
    """Copies to the address, in a thread."""

    def __init__(self, mirror: Mirror, owner: str, say: Callable[[str], None]) -> None:
        self._mirror, self._owner, self._say = mirror, owner, say
        self._beat, self._copied = 0, dict.fromkeys(mirror._files(), (0, 0))
        self._problem = ""
        here = json.dumps({"owner": owner, "address": mirror.address})
        write_private(mirror.out / OWNER_FILE, here)
        self._claim(0)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="study-mirror")
        self._thread.start()

    def close(self) -> None:
        """Copy for the last time."""
        self._end.set()
        self._thread.join()
        self._copy(last=True)
        if self._problem and self._problem != _TAKEN:
            self._say(
                f"note: {shown(self._mirror.address)} lacks the newest files ({self._problem}): they are in "
                f"{shown(self._mirror.out)}, from which a resume on this machine brings them there"
            )

    def _run(self) -> None:
        while not self._end.wait(BEAT_S):
            self._copy()

    def _copy(self, last: bool = False) -> None:
        try:
            owner = self._mirror._owner().get("owner", self._owner)
            if owner != self._owner:
                if not self._problem:
                    self._say("note: another machine has gone on with this study: end this process")
                self._problem = _TAKEN
                return
            self._claim(self._beat + 1)
            self._copy_files()
            if last:
                self._claim(None)
            self._problem = ""
        except OSError as error:  # the next time
            self._problem = reason(error)

    def _claim(self, beat: int | None) -> None:
        self._beat = beat or 0
        said = {"owner": self._owner, "host": socket.gethostname(), "beat": beat}
        self._write(OWNER_FILE, json.dumps(said).encode())

    def _copy_files(self) -> None:
        out = self._mirror.out
        here = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
        for name in _NOT_COPIED:
            here.pop(name, None)
        for name, path in here.items():
            with contextlib.suppress(FileNotFoundError):  # it has gone since
                state = path.stat()
                if self._copied.get(name) != (state.st_mtime_ns, state.st_size):
                    self._write(name, path.read_bytes())
                    self._copied[name] = (state.st_mtime_ns, state.st_size)
        for name in self._copied.keys() - here.keys():
            with contextlib.suppress(FileNotFoundError):
                self._mirror.filesystem.delete_file(f"{self._mirror.folder}/{name}")
            del self._copied[name]

    def _write(self, name: str, data: bytes) -> None:
        from tdmpc_ray.datasets.chunk_store import write_whole

        write_whole(self._mirror.filesystem, f"{self._mirror.folder}/{name}", data)
