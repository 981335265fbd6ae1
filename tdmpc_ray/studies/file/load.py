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
