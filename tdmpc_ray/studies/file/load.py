"""From a study file, or the values that one would hold, to a checked study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.paths import FOLDER
from tdmpc_ray.studies.file.reading import problems, read_mapping
from tdmpc_ray.studies.file.spec import Study


def load_study(path: Path | str, folder: Path | str = "") -> Study:
    """Read and check a study file.

    Args:
        path: of the file.
        folder: what relative paths in it begin at; none: this process's own.

    Raises:
        UserError: the file or something in it is wrong; names the file, the key and what would be right.
    """
    path = Path(path)
    try:
        return Study.model_validate(read_mapping(path), context={FOLDER: folder})
    except ValidationError as error:
        raise UserError(_joined(f"{path}", problems(error, Study))) from None


def load_changed(path: Path | str, changes: Mapping[str, Any]) -> Study:
    """Read and check a study file, with what the command line says in its place.

    Args:
        path: of the file.
        changes: see `merged`.

    Raises:
        UserError: something in the file or in the changes is wrong.
    """
    if not changes:
        return load_study(path)
    try:
        return make_study(merged(read_mapping(Path(path)), changes))
    except UserError as error:
        raise UserError(f"{path}, with the options: {error}") from None


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A study file's values with others in their place; sections keep what is not named."""
    new = dict(values)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(new.get(key), Mapping)
        new[key] = {**new[key], **value} if both else value
    return new


def make_study(
    values: Mapping[str, Any], names: Mapping[str, str] | None = None, folder: Path | str = ""
) -> Study:
    """Build a study from the values that a study file would hold.

    Args:
        values: as in a study file.
        names: what the user calls a key, such as `{"steps": "--steps"}`.
        folder: what relative paths in them begin at; none: this process's own.

    Raises:
        UserError: something in them is wrong.
    """
    try:
        return Study.model_validate(dict(values), context={FOLDER: folder})
    except ValidationError as error:
        lines = []
        for line in problems(error, Study):
            key, colon, rest = line.partition(": ")
            lines.append(f"{(names or {}).get(key, key)}{colon}{rest}")
        raise UserError("; ".join(lines)) from None


def _joined(name: str, lines: list[str]) -> str:
    if len(lines) == 1:
        return f"{name}: {lines[0]}"
    return "\n  ".join([f"{name} has {len(lines)} problems:", *lines])
