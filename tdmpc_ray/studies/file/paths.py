"""Paths in a study: absolute from the moment it is read, because its trials run in folders of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationInfo

from tdmpc_ray import addresses
from tdmpc_ray.core.config import PATH_SETTINGS, is_path
from tdmpc_ray.studies.file.draws import Draw

FOLDER = "folder"  # of the validation's context: what relative paths begin at


def base(info: ValidationInfo) -> str:
    """What relative paths begin at; empty: this process's own folder."""
    return str((info.context or {}).get(FOLDER, ""))


def absolute(path: str, info: ValidationInfo) -> str:
    """A path as it is meant where the study is read; an address as it is."""
    return addresses.absolute(os.path.expanduser(path), base(info)) if is_path(path) else path


def relative(path: str, folder: Path) -> str:
    """A path inside of a folder as seen from there; any other one as it is."""
    return os.path.relpath(path, folder) if Path(path).is_relative_to(folder) else path


def map_settings(settings: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Settings, those that are paths changed."""
    return {
        key: change(value) if key in PATH_SETTINGS and isinstance(value, str) else value
        for key, value in settings.items()
    }


def map_space(space: Mapping[str, Draw], change: Callable[[str], str]) -> dict[str, Draw]:
    """What settings vary over, those that are paths changed."""

    def changed(key: str, draw: Draw) -> Draw:
        listed = {"grid": draw.grid, "choice": draw.choice}
        values = {
            kind: [map_settings({key: value}, change)[key] for value in given]
            for kind, given in listed.items()
            if given is not None
        }
        return draw.model_copy(update=values)

    return {key: changed(key, draw) if key in PATH_SETTINGS else draw for key, draw in space.items()}
