"""What a study tries in any case: its tasks, algorithms, model sizes and the points of its grids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tdmpc_ray.errors import unknown
from tdmpc_ray.studies.file.draws import Draw
from tdmpc_ray.studies.file.reading import problems
from tdmpc_ray.studies.file.sections import Resources

RESOURCES = "resources."  # what keys of `space` begin with that are no settings of the agent
RESOURCE_KEYS = [f"{RESOURCES}{key}" for key in Resources.model_fields if key != "max_concurrent_trials"]


@dataclass(frozen=True)
class Point:
    """One of them.

    Attributes:
        task: what is learned.
        algorithm: what learns it.
        model_size: a key of the algorithm's sizes.
        settings: fixed ones and those of the grids, dotted keys in their types.
        resources: of each trial.
        steps: agent steps of each trial.
    """

    task: str
    algorithm: str
    model_size: str
    settings: dict[str, Any]
    resources: Resources
    steps: int


def check_resource(key: str, draw: Draw) -> None:
    """Refuse a part of the space that is no resource of a trial, or drawn.

    Raises:
        ValueError: says what would be right.
    """
    if key not in RESOURCE_KEYS:
        raise ValueError(str(unknown("resource of a trial", key, RESOURCE_KEYS)))
    if draw.grid is None:
        raise ValueError(f"{key}: resources are compared, not drawn: give {{grid: [...]}}")


def with_resources(resources: Resources, values: Mapping[str, Any]) -> Resources:
    """`resources` with those of `values` whose keys begin with `resources.`; others are left out.

    Raises:
        ValueError: a value that it cannot have.
    """
    changes = {k.removeprefix(RESOURCES): v for k, v in values.items() if k.startswith(RESOURCES)}
    if not changes:
        return resources
    try:
        return Resources.model_validate({**resources.model_dump(), **changes})
    except ValidationError as error:
        raise ValueError(RESOURCES + problems(error, Resources)[0]) from None
