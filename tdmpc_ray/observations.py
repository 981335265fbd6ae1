"""Observations of one part, a vector or stacked frames, or of two: stacked frames and a vector beside them.

Those of two parts are dicts with the keys `IMAGE` and `VECTOR`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

IMAGE, VECTOR = "image", "vector"
ObsArray = np.ndarray | Mapping[str, np.ndarray]


def parts_of(obs: Any) -> tuple[Any, Any]:
    """Of an observation or a space: the one part that there is and None, or image and vector."""
    # Of a space, `in` would ask whether it contains an observation.
    has_two = isinstance(obs, Mapping) and {IMAGE, VECTOR} <= set(obs)
    return (obs[IMAGE], obs[VECTOR]) if has_two else (obs, None)


def map_parts(call: Callable[[Any], Any], obs: Any) -> Any:
    """What `call` gives for each part of an observation, in the same form."""
    return {name: call(part) for name, part in obs.items()} if isinstance(obs, Mapping) else call(obs)


def stack(observations: Sequence[Any]) -> Any:
    """Observations of N environments, in the same form, (N, ...)."""
    if isinstance(observations[0], Mapping):
        return {name: np.stack([obs[name] for obs in observations]) for name in observations[0]}
    return np.stack(observations)
