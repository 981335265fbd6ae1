"""The file system behind a path or an address: whatever pyarrow or fsspec reach."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from fsspec.core import url_to_fs
from pyarrow.fs import FileSystem, FSSpecHandler, LocalFileSystem, PyFileSystem

from tdmpc_ray.addresses import is_address, public_address
from tdmpc_ray.errors import PassingError, reason


def open_folder(place: str | Path) -> tuple[FileSystem, str]:
    """The file system of a path or address, and the folder on it.

    Raises:
        PassingError: it cannot be reached now.
    """
    address = str(place)
    if not is_address(address):
        return LocalFileSystem(), os.path.abspath(address)
    try:
        try:
            filesystem, folder = FileSystem.from_uri(address)
        except ValueError as error:
            if "Unrecognized filesystem type" not in str(error):
                raise
            fsspec_system, folder = url_to_fs(address)
            filesystem = PyFileSystem(FSSpecHandler(fsspec_system))
        folder = posixpath.normpath(folder)
        filesystem.get_file_info(folder)
    except (OSError, ValueError, ImportError) as error:
        public = public_address(address)
        why = reason(error).replace(address, public)
        raise PassingError(f"cannot reach {public}: {why}") from None
    return filesystem, folder
