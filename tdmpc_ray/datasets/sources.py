"""Where episodes lie: a file or a folder of any format, or a dataset by its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tdmpc_ray.addresses import refuse_address
from tdmpc_ray.datasets.dataset import Dataset
from tdmpc_ray.datasets.episode import Episode
from tdmpc_ray.datasets.manifest import is_dataset
from tdmpc_ray.datasets.minari import PREFIX, is_minari, read_minari
from tdmpc_ray.datasets.numpy_files import read_npz
from tdmpc_ray.datasets.robomimic import SUFFIXES, read_robomimic
from tdmpc_ray.errors import UserError

_FORMATS = "episodes as .npz, a file of robomimic (.hdf5), or a dataset of Minari"


def require_source(where: str) -> None:
    """Refuse a place where no episodes lie; reads none.

    Raises:
        UserError: says what is expected there.
    """
    if not where.startswith(PREFIX):
        _files(where)


def read_episodes(where: str) -> Iterator[Episode]:
    """Read and check all episodes of a place, in their order.

    Args:
        where: a dataset of ours; a folder of `.npz` files or one such file; an HDF5 file of robomimic,
            `FILE.hdf5#KEY,KEY` with the observations to join, or a folder of such files; the folder of a
            dataset of Minari, or `minari:ID`.

    Raises:
        UserError: there is nothing, or what is there is damaged or no episode; says what and where.
    """
    if where.startswith(PREFIX) or is_minari(Path(where)):
        found = read_minari(where)
    elif is_dataset(Path(where)):
        found = Dataset(Path(where)).episodes()
    else:
        keys = [key for key in where.partition("#")[2].split(",") if key]
        found = (episode for file in _files(where) for episode in _of_file(file, keys))
    is_empty = True
    for episode in found:
        episode.check()
        is_empty = False
        yield episode
    if is_empty:
        raise UserError(f"{where} has no episodes")


def _of_file(file: Path, keys: list[str]) -> Iterator[Episode]:
    if file.suffix in SUFFIXES:
        yield from read_robomimic(file, keys)
    else:
        yield read_npz(file)


def _files(where: str) -> list[Path]:
    path = Path(where.partition("#")[0])
    refuse_address(path)
    if is_minari(path) or is_dataset(path):
        return [path]
    if path.is_file() and path.suffix in (".npz", *SUFFIXES):
        return [path]
    files = sorted(file for file in path.glob("*") if file.suffix in (".npz", *SUFFIXES))
    if not files:
        kinds = {path.is_file(): "is no file of episodes", path.is_dir(): "has no episodes"}
        what = kinds.get(True, "is not there")
        raise UserError(f"{where} {what}: give {_FORMATS}")
    return files
