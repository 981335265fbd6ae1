"""What goes along with a job: gathered, summed up, and held against what Ray takes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
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
    sizes = sum_up(sources)
    _refuse_too_much(sizes)
    try:
        for path in sources:
            target = folder / path.resolve().name
            if target.exists():
                raise UserError(
                    f"cannot send {path}: something else of this name goes along, rename one of them"
                )
            if path.is_dir():
                shutil.copytree(path, target, ignore=_left_out)
            else:
                shutil.copyfile(path, target)
    except shutil.Error as error:  # of a folder: what could not be copied, and why
        source, _, why = error.args[0][0]
        raise UserError(f"cannot send {source}: {why}") from None
    except OSError as error:
        raise UserError(f"cannot send {error.filename}: {error.strerror}") from None
    return f"sending {_amount(sizes)}" if len(sizes) > 1 else ""


def sum_up(paths: Sequence[Path]) -> dict[Path, int]:
    """Bytes of each file that would go along.

    Raises:
        UserError: a path is neither a file nor a folder.
    """
    sizes = {}
    for path in paths:
        if path.exists() and not (path.is_dir() or path.is_file()):
            raise UserError(f"cannot send {path}: it is a device, a pipe or a socket, not a file")
        if path.is_file():
            sizes[path] = path.stat().st_size
        for parent, folders, files in os.walk(path):
            left_out = _left_out(parent, [*folders, *files])
            folders[:] = [name for name in folders if name not in left_out]
            found = (Path(parent, name) for name in files if name not in left_out)
            sizes |= {file: file.stat().st_size for file in found if file.is_file()}
    return sizes


def _left_out(parent: str, names: Sequence[str]) -> set[str]:
    """Of the names in a folder, those that stay behind."""
    return {
        name for name in names if name in _CODE or name.endswith(".pyc") or _is_output(Path(parent, name))
    }


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
