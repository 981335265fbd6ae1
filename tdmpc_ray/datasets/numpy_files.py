"""Episodes in `.npz` files, one each: our own, and those of others under their usual names.

`obs` (T + 1, *obs_shape) as the environment gave it, `action` (T, A) in [-1, 1], `reward` (T,) and, where the
task itself ended, `terminated` (true). Also `task`, its name; `success`; and of images with a vector beside
them `vector` (T + 1, V), `obs` being the images.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from tdmpc_ray.datasets.episode import Episode, without_last
from tdmpc_ray.errors import UserError
from tdmpc_ray.observations import VECTOR

# Ours first; Gymnasium's and D4RL's behind it.
_NAMES = {
    "obs": ("obs", "observations", "observation"),
    "action": ("action", "actions"),
    "reward": ("reward", "rewards"),
    "terminated": ("terminated", "terminals", "terminations"),
}
_NEEDED = ("obs", "action", "reward")


def read_npz(file: Path) -> Episode:
    """Read one episode.

    Raises:
        UserError: the file is damaged, or lacks something.
    """
    source = f"the demonstration {file}"
    try:
        with np.load(file) as archive:
            found = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {source}: {error}") from None
    parts = {
        ours: next((found[name] for name in names if name in found), None) for ours, names in _NAMES.items()
    }
    if missing := [name for name in _NEEDED if parts[name] is None]:
        raise UserError(f"{source} has no '{missing[0]}'")
    obs, action, reward = (np.asarray(parts[name]) for name in _NEEDED)
    for name, array in (("obs", obs), ("action", action), ("reward", reward)):
        if array.dtype.kind not in "biuf" or array.ndim == 0:
            raise UserError(f"{source} has {name} of {array.dtype}, shape {array.shape}: give numbers")
    vector, ends = found.get(VECTOR), parts["terminated"]
    steps = without_last(obs, action)
    terminated = ends is not None and bool(np.asarray(ends).reshape(-1)[-1:].any()) and steps == len(action)
    success = found.get("success")
    return Episode(
        source,
        obs if obs.dtype == np.uint8 else obs.astype(np.float32),
        action[:steps].astype(np.float32),
        reward[:steps].reshape(-1).astype(np.float32),
        terminated,
        None if vector is None else vector.astype(np.float32),
        str(found.get("task", "")),
        None if success is None else bool(np.asarray(success).reshape(-1)[-1]),
    )
