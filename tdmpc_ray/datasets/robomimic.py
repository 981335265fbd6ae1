"""Episodes in an HDF5 file as robomimic writes them: `data/demo_N` with `actions`, `rewards`, `obs/KEY`.

An agent observes one vector: the entries of `obs` that have one axis beside time, in the order of their
names, or those that `FILE.hdf5#KEY,KEY` names, in that order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc_ray.datasets.episode import Episode, without_last
from tdmpc_ray.errors import UserError, reason

SUFFIXES = (".hdf5", ".h5")


def read_robomimic(file: Path, keys: Sequence[str] = ()) -> Iterator[Episode]:
    """Read all episodes of a file, in the order of their numbers.

    Args:
        file: to read.
        keys: of the observations, in the order in which they are joined; none: all vectors by name.

    Raises:
        UserError: h5py is missing, the file is damaged or of another form, or lacks a key.
    """
    try:
        import h5py
    except ImportError:
        raise UserError("HDF5 files need h5py: pip install 'tdmpc-ray[minari]'") from None
    try:
        with h5py.File(file, "r") as content:
            data = content.get("data")
            names = [name for name in data or () if name.startswith("demo_")]
            if not names:
                raise UserError(f"{file} is no file of robomimic: it has no data/demo_0")
            task = _task(data.attrs.get("env_args"))
            for name in sorted(names, key=lambda name: int(name.removeprefix("demo_"))):
                yield _episode(f"the demonstration {file}, {name}", data[name], keys, task)
    except UserError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"cannot read {file}: {reason(error)}") from None


def _episode(source: str, group: Any, keys: Sequence[str], task: str) -> Episode:
    seen, after = group.get("obs"), group.get("next_obs")
    for name in ("obs", "actions", "rewards"):
        if name not in group:
            hint = ": make it with robomimic's dataset_states_to_obs" if name == "obs" else ""
            raise UserError(f"{source} has no '{name}'{hint}")
    chosen = list(keys) or sorted(key for key in seen if seen[key].ndim == 2)
    if missing := [key for key in chosen if key not in seen]:
        raise UserError(f"{source} observes no '{missing[0]}': there are {', '.join(sorted(seen))}")
    if not chosen or (images := [key for key in chosen if seen[key].ndim != 2]):
        what = images[0] if chosen else "images alone"
        raise UserError(f"{source} observes {what}: choose vectors by name, FILE#KEY,KEY")
    obs = np.concatenate([seen[key][:] for key in chosen], axis=1).astype(np.float32)
    if after is not None and all(key in after for key in chosen):
        last = np.concatenate([after[key][-1:] for key in chosen], axis=1)
        obs = np.concatenate([obs, last.astype(np.float32)])
    action, reward = (group[name][:].astype(np.float32) for name in ("actions", "rewards"))
    steps = without_last(obs, action)
    return Episode(source, obs, action[:steps], reward[:steps].reshape(-1), task=task)


def _task(env_args: Any) -> str:
    try:
        return str(json.loads(env_args)["env_name"])
    except (TypeError, ValueError, KeyError):
        return ""
