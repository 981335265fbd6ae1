"""Where a study is: a folder on a disk, or an address with a folder of this machine that belongs to it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pyarrow.fs import FileSystem, LocalFileSystem

from tdmpc_ray.addresses import is_address, refuse_address
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.files import STUDY_FILE, existing
from tdmpc_ray.studies.file.folder import only_process, require_empty
from tdmpc_ray.studies.file.mirror import Mirror
from tdmpc_ray.studies.file.tune_folder import TUNE_FOLDER, TuneFolder
from tdmpc_ray.studies.words import shown


@dataclass(frozen=True)
class StudyPlace:
    """A study's folder, and where Tune writes.

    Attributes:
        out: the folder on this machine, see `folder.py`; absolute.
        given: how users name it: the folder, or the address.
        filesystem: of what Tune writes.
        folder: the study's, on it.
        mirror: what keeps the address like `out`; None: there is no address.
    """

    out: Path
    given: str
    filesystem: FileSystem
    folder: str
    mirror: Mirror | None = None

    @classmethod
    def of(cls, given: str | Path) -> StudyPlace:
        """The place that a path or an address names.

        Raises:
            UserError: an address that cannot be reached, or names no folder.
        """
        if not is_address(given):
            refuse_address(Path(given))  # one that has become a path
        out = Path(given).absolute()
        mirror = Mirror.of(str(given)) if is_address(given) else Mirror.behind(out)
        if mirror is None:
            return cls(out, str(out), LocalFileSystem(), str(out))
        return cls(mirror.out, mirror.address, mirror.filesystem, mirror.folder, mirror)

    @property
    def tune(self) -> TuneFolder:
        """What Tune has written."""
        return TuneFolder(self.filesystem, f"{self.folder}/{TUNE_FOLDER}")

    def require_empty(self) -> None:
        """Refuse a place for a new study that has something in it.

        Raises:
            UserError: says so.
        """
        if self.mirror is not None:
            self.mirror.require_empty()
        require_empty(self.out)

    def require_study(self) -> None:
        """Refuse a place without a study.

        Raises:
            UserError: says so.
        """
        if self.mirror is None:
            existing(self.out)
        elif not os.path.isfile(self.out / STUDY_FILE) and not self.mirror.has(STUDY_FILE):
            raise UserError(f"{shown(self.given)} is not a study's folder: it has no {STUDY_FILE}")

    @contextlib.contextmanager
    def taken(self, say: Callable[[str], None], *, is_new: bool = False) -> Iterator[None]:
        """Within, this process alone works on the study, and an address gets what changes.

        Args:
            say: called with a line for the user.
            is_new: the study is about to begin; the place has to be empty.

        Raises:
            UserError: another process works on it, it cannot be written, or is not empty.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(only_process(self.out, makes=is_new or self.mirror is not None))
            if is_new:
                require_empty(self.out)  # whoever had the lock before may have begun here
            if self.mirror is not None:
                stack.enter_context(self.mirror.kept_up(say))
            yield
