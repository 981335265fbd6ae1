"""The multi-task datasets that were published with TD-MPC2, in files of several versions of tensordict.

A file is a pickled tensordict of batch (episodes, rows) with `obs`, `action`, `reward` and `task`. Row t + 1
has the action and the reward that led to obs t + 1; those of row 0 are filler. Nothing of the file is run:
classes of tensordict are stood in for by ours, which only hold what the file says.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdmpc_ray.datasets.episode import Episode
from tdmpc_ray.errors import UserError, reason

_COLUMNS = ("obs", "action", "reward", "task")


class _Held(dict):
    """Stands in for tensordict's classes: keeps the state that a pickle gives an object."""

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        for part in parts:
            if isinstance(part, Mapping):
                self.update(part)


def _made(cls: Any, state: Any = None, *rest: Any) -> _Held:
    """Stands in for tensordict's function that newer pickles call."""
    held = _Held()
    for part in (state, *rest):
        if isinstance(part, Mapping):
            held.update(part)
    return held


_STAND_INS: list[Any] = [
    (_Held, "tensordict.tensordict.TensorDict"),
    (_Held, "tensordict._td.TensorDict"),
    (OrderedDict, "tensordict.utils._StringOnlyDict"),  # torch fills no other kind of dict
    (_made, "tensordict._reductions._make_td"),
    (set, "builtins.set"),
    (set, "__builtin__.set"),
]


def read_published(
    file: Path, tasks: Sequence[str], obs_dims: Sequence[int], action_dims: Sequence[int]
) -> Iterator[Episode]:
    """Read the episodes of a file, those of one task after the other.

    Args:
        file: `chunk_N.pt`.
        tasks: names, in the order of the file's ids.
        obs_dims: sizes of the tasks' own observations; the file's are filled up.
        action_dims: likewise.

    Raises:
        UserError: the file is damaged, or of another form; says which file and why.
    """
    columns = _columns(file)
    obs, action, reward, task = (columns[name] for name in _COLUMNS)
    ids = task.reshape(len(task), -1)[:, 0].long().numpy()
    if len(ids) and not 0 <= ids.min() <= ids.max() < len(tasks):
        raise UserError(f"{file}: holds task {ids.max()}, there are {len(tasks)} names of tasks")
    for number in np.unique(ids):
        name, own_obs, own_action = tasks[number], obs_dims[number], action_dims[number]
        if own_obs > obs.shape[-1] or own_action > action.shape[-1]:
            sizes = f"{own_obs} and {own_action}"
            raise UserError(
                f"{file}: task '{name}' is said to have sizes {sizes}, the file has {obs.shape[-1]} and "
                f"{action.shape[-1]}"
            )
        for index in np.flatnonzero(ids == number):
            yield Episode(
                f"{file}, episode {index}",
                obs[index, :, :own_obs].float().numpy(),
                action[index, 1:, :own_action].float().numpy(),
                reward[index, 1:].reshape(-1).float().numpy(),
                task=name,
            )


def padded_sizes(file: Path) -> tuple[int, int]:
    """Widths of a file's observations and actions, to which those of all tasks are filled up.

    Raises:
        UserError: as `read_published`.
    """
    columns = _columns(file)
    return columns["obs"].shape[-1], columns["action"].shape[-1]


def _columns(file: Path) -> dict[str, Tensor]:
    """The file's tensors, mapped into memory."""
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        found = dict(_tensors(content))
    except FileNotFoundError:
        raise UserError(f"there is no file {file}") from None
    except Exception as error:  # a torn or foreign file may fail in any way
        raise UserError(f"{file} is damaged, or no file of the published datasets: {_why(error)}") from None
    if missing := [name for name in _COLUMNS if name not in found]:
        raise UserError(f"{file} is no file of the published datasets: it has no '{missing[0]}'")
    obs, action = found["obs"], found["action"]
    if obs.dim() != 3 or action.dim() != 3 or obs.shape[:2] != action.shape[:2]:
        shapes = f"obs {tuple(obs.shape)}, action {tuple(action.shape)}"
        raise UserError(f"{file} is no file of the published datasets: {shapes}")
    return found


def _why(error: Exception) -> str:
    """What is wrong with a file, without torch's advice."""
    if isinstance(error, pickle.UnpicklingError):
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = [line for line in lines if line.startswith(("Unsupported", "Can only", "GLOBAL"))]
        return said[0] if said else "it holds something else than a tensordict of tensors"
    return reason(error)


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors, however deep a version of tensordict keeps them."""
    if not isinstance(content, Mapping):
        return
    for name, value in content.items():
        if isinstance(value, Tensor) and name in _COLUMNS:
            yield str(name), value
        elif isinstance(value, Mapping):
            yield from _tensors(value)
