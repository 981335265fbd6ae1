"""What goes along with a job: gathered, summed up, and held against what Ray takes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import tdmpc_ray
from tdmpc_ray.errors import UserError

_CODE = ("__pycache__", ".git", ".hg", ".svn", ".mypy_cache", ".pytest_cache", ".ruff_cache", "node_modules")
_OUTPUT = ("results", "mlruns", "mlartifacts")  # unless they are packages of Python
_NUM_NAMED = 3  # of the largest files


def stage(folder: Path, paths: Sequence[Path], with_code: bool) -> str:
    """Gather what goes along with a job.

    Version control, virtual environments, caches and results stay behind.

    Returns:
        What it is and how much, in a line.

    Raises:
        UserError: something is missing, has another's name, is no file, or is more than Ray takes.
    """
    sources = [*paths, *((Path(tdmpc_ray.__file__).parent,) if with_code else ())]
    try:
        sizes = sum_up(sources)
        _refuse_too_much(sizes)
        for path in sources:
            target = folder / path.resolve().name
            if target.exists():
                raise UserError(
                    f"cannot send {path}: something else of this name goes along, rename one of them"
                )
            if path.is_dir():
                target.mkdir()
            for file in files_in(path):
                to = target / file.relative_to(path)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, to)
    except OSError as error:
        raise UserError(f"cannot send {error.filename}: {error.strerror}") from None
    return f"sending {_amount(sizes)}" if len(sizes) > 1 else ""


def sum_up(paths: Sequence[Path]) -> dict[Path, int]:
    """Bytes of each file that would go along.

    Raises:
        UserError: a path is neither a file nor a folder.
    """
    for path in paths:
        if path.exists() and not (path.is_dir() or path.is_file()):
            raise UserError(f"cannot send {path}: it is a device, a pipe or a socket, not a file")
    return {file: file.stat().st_size for path in paths for file in files_in(path)}


def files_in(path: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """The files in a folder that go along, in linked folders too, or a file itself.

    Links that lead nowhere, as editors leave them, pipes and sockets stay behind, and so does a linked folder
    within itself.

    Args:
        path: of the folder, as the paths of the files begin.
        above: real paths of the folders that it lies in.

    Raises:
        OSError: a folder cannot be read.
    """
    if path.is_file():
        yield path
        return
    real = os.path.realpath(path)
    if real in above:
        return
    names = sorted(os.listdir(path))
    left_out = _left_out(path, names)
    for inner in (path / name for name in names if name not in left_out):
        if inner.is_dir() or inner.is_file():
            yield from files_in(inner, above | {real})


def _left_out(parent: Path, names: Sequence[str]) -> set[str]:
    """Of the names in a folder, those that stay behind."""
    return {name for name in names if name in _CODE or name.endswith(".pyc") or _is_output(parent / name)}


def _is_output(path: Path) -> bool:
    is_results = path.name in _OUTPUT and not (path / "__init__.py").is_file()
    return path.is_dir() and (is_results or (path / "pyvenv.cfg").is_file())


def _refuse_too_much(sizes: dict[Path, int]) -> None:
    from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE as MOST

    if sum(sizes.values()) >= MOST:
        raise UserError(
            f"cannot send {_amount(sizes)}: Ray takes {MOST / 1e6:,.0f} MB at most; put what is large on "
            "a folder that the cluster shares and name its path in the study, or give --with a smaller one"
        )


def _amount(sizes: dict[Path, int]) -> str:
    largest = sorted(sizes, key=lambda path: -sizes[path])[:_NUM_NAMED]
    named = ", ".join(f"{path} {sizes[path] / 1e6:,.1f} MB" for path in largest)
    return f"{len(sizes):,} files of {sum(sizes.values()) / 1e6:,.1f} MB (the largest: {named})"
