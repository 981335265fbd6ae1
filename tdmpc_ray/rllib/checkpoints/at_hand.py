"""Runs and checkpoints that lie at an address, brought to this machine as far as they are needed."""

from __future__ import annotations

import contextlib
import os
import posixpath
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType

from tdmpc_ray.addresses import is_address, public_address
from tdmpc_ray.errors import PassingError, UserError, reason
from tdmpc_ray.rllib.checkpoints.manifest import REPLAY_FOLDER
from tdmpc_ray.rllib.checkpoints.open_folder import open_folder

_SMALL = 2**16  # bytes: manifests, metadata and the like
# By which checkpoints are compared, and the config with what their environments are built from.
_ALWAYS = ("algorithm_state.pkl", "tuner.pkl", "class_and_ctor_args.pkl")
_PARALLEL = 32  # requests at once


@contextlib.contextmanager
def at_hand(
    source: str | Path, needed: Callable[[Path], Iterable[Path]], home_file: str | None = None
) -> Iterator[Path]:
    """A run, study or checkpoint in a local folder: itself, or a temporary copy of what lies at an address.

    The copy has small files, but of a large one only its size and time, until it is `needed`. A replay's
    chunks are never in it. So that a study of hundreds of checkpoints costs little more than the one that is
    used, and a file that somebody reads without need shows as damaged.

    Args:
        source: a path, or an address.
        needed: called with the copy: the folders of it whose files are needed.
        home_file: where the folder, or one of those above it, has a file of this name, as a study's has, the
            copy begins there.

    Raises:
        UserError: nothing is there, or it cannot be reached.
    """
    if not is_address(source):
        yield Path(source)
        return
    public = public_address(str(source))
    filesystem, folder = open_folder(source)
    with tempfile.TemporaryDirectory(prefix="tdmpc_ray-") as temporary:
        with _reading(public):
            home = _home(filesystem, folder, home_file)
            files, inside = _listed(filesystem, home), posixpath.relpath(folder, home)
            if not any(_is_in(name, [inside]) for name in files):
                raise UserError(f"nothing lies at {public}")
            root = Path(temporary) / posixpath.basename(home)
            for name, info in files.items():
                _make_hole(root / name, info)
            _bring(filesystem, root, {n: i for n, i in files.items() if _is_small(n, i)})
        with _by_address(root, f"{public.partition('://')[0]}://{home}"):
            with _reading(public):
                wanted = [path.relative_to(root).as_posix() for path in needed(root / inside)]
                _bring(filesystem, root, {n: i for n, i in files.items() if _is_in(n, wanted)})
            yield root / inside


@contextlib.contextmanager
def _reading(public: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PassingError(f"cannot read {public}: {reason(error)}") from None


def _home(filesystem: FileSystem, folder: str, home_file: str | None) -> str:
    """The folder of a study that `folder` lies in or is, or else this itself."""
    above = [folder]
    while home_file is not None and len(above) < 4 and posixpath.dirname(above[-1]):
        above.append(posixpath.dirname(above[-1]))
    infos = filesystem.get_file_info([f"{path}/{home_file}" for path in above])
    return next((path for path, info in zip(above, infos, strict=True) if info.type == FileType.File), folder)


def _listed(filesystem: FileSystem, folder: str) -> dict[str, FileInfo]:
    """The files below a folder by their names relative to it; without those of replays."""
    infos = filesystem.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True))
    named = {posixpath.relpath(info.path, folder): info for info in infos if info.type == FileType.File}
    return {name: info for name, info in named.items() if REPLAY_FOLDER not in name.split("/")[:-1]}


def _is_small(name: str, info: FileInfo) -> bool:
    return info.size <= _SMALL or posixpath.basename(name) in _ALWAYS


def _is_in(name: str, folders: Iterable[str]) -> bool:
    return any(folder == "." or name.startswith(f"{folder}/") for folder in folders)


def _make_hole(file: Path, info: FileInfo) -> None:
    """A file of the size and time of another one, which takes no room."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        stream.truncate(info.size)
    _set_time(file, info)


def _bring(filesystem: FileSystem, root: Path, files: Mapping[str, FileInfo]) -> None:
    def bring(item: tuple[str, FileInfo]) -> None:
        name, info = item
        with filesystem.open_input_stream(info.path) as stream, (root / name).open("wb") as file:
            while block := stream.read(2**24):
                file.write(block)
        _set_time(root / name, info)

    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(bring, files.items()))


def _set_time(file: Path, info: FileInfo) -> None:
    if info.mtime_ns is not None:
        os.utime(file, ns=(info.mtime_ns, info.mtime_ns))


@contextlib.contextmanager
def _by_address(root: Path, home: str) -> Iterator[None]:
    """Within, errors name what is at the address, not its copy."""
    try:
        yield
    except UserError as error:
        raise type(error)(str(error).replace(str(root), home)) from None
