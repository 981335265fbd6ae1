"""Checks of settings and of episodes: one line that says what is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tdmpc_ray.errors import PassingError, UserError, brief, unknown

_NUM_LISTED = 3  # tensors that an error names


def coerce(key: str, value: Any, kind: Any) -> Any:
    """Accept what YAML, JSON and the command line give for a number; refuse what would change its meaning."""
    problem = UserError(
        f"{key}={brief(value)} is not a valid value: expected {getattr(kind, '__name__', kind)}"
    )
    if kind is str and value is None:  # `--set data.demonstrations=`
        return ""
    if kind in (bool, str):
        if type(value) is not kind:
            raise problem
        return value
    if isinstance(value, bool):
        raise problem
    if value is None:
        if type(None) not in getattr(kind, "__args__", ()):
            raise problem
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise problem from None
    if not math.isfinite(number):
        raise problem
    if float in (kind, *getattr(kind, "__args__", ())):
        return number
    if number != int(number) or abs(number) >= 2**63:
        raise problem
    return int(number)


def require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


def require_positive(config: Any, *names: str) -> None:
    section = type(config).__name__.removesuffix("Config").lower()
    for name in names:
        value = getattr(config, name)
        require(value > 0, f"{section}.{name} must be positive, not {value}")


def require_one_of(known: Iterable[str], key: str, value: str) -> None:
    if value not in known:
        raise unknown(key, value, known)


def require_finite(start: int, **arrays: np.ndarray) -> None:
    """Refuse numbers that are not finite.

    Args:
        start: index of the first step in its episode.
        arrays: what is given, by name; the first axis is time.

    Raises:
        UserError: names the array and the step.
    """
    for name, given in arrays.items():
        if given.dtype == np.uint8:
            continue
        with np.errstate(over="ignore"):
            values = np.asarray(given, np.float32)  # as they are kept: 1e39 would be infinite
        finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        if not finite.all():
            step = start + int(np.argmin(finite))
            raise PassingError(f"the {name} at step {step} of an episode is not finite: mend the environment")


def refuse_two_parts(model: Any, done: str) -> None:
    """Refuse a model of images and a vector, for what handles observations of one part alone.

    Raises:
        UserError: it is such a model.
    """
    if model.vector_dim:
        raise UserError(f"a model that observes images and a vector cannot be {done} yet")


def shape_differences(ours: Mapping[str, Any], given: Mapping[str, Any], where: str) -> str:
    """Name the first tensors whose shapes differ, or that are missing; empty where all are alike.

    Args:
        ours: tensors by name.
        given: what should be like them.
        where: the words for where `given` comes from.
    """
    problems = [
        f"{key} is {_shape(given.get(key))} {where} and {_shape(ours.get(key))} here"
        for key in [*ours, *(key for key in given if key not in ours)]
        if _shape(given.get(key)) != _shape(ours.get(key))
    ]
    more = len(problems) - _NUM_LISTED
    return "; ".join(problems[:_NUM_LISTED]) + (f"; and {more} more" if more > 0 else "")


def _shape(tensor: Any) -> str:
    return "missing" if tensor is None else str(tuple(tensor.shape))
