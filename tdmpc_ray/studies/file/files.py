"""What lies in a study's folder, by name; light, because whoever only reads results looks here, too."""

from __future__ import annotations

import os
from pathlib import Path

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.words import shown

STUDY_FILE = "study.yaml"
LOCK_FILE = ".lock"
TRACKING_FOLDER = "mlflow"


def existing(out: Path) -> Path:
    """The absolute path of a study's folder.

    Raises:
        UserError: it is none.
    """
    out = Path(out).absolute()
    if not os.path.isdir(out):
        raise UserError(f"there is no folder {shown(out)}")
    if not (out / STUDY_FILE).is_file():
        raise UserError(f"{shown(out)} is not a study's folder: it has no {STUDY_FILE}{_newest_in(out)}")
    return out


def _newest_in(folder: Path) -> str:
    """The newest of the studies in a folder of results, for whoever named that."""
    files = sorted(folder.glob(f"*/{STUDY_FILE}"), key=lambda file: file.stat().st_mtime)
    return f"; the newest of the {len(files)} in it is {shown(files[-1].parent)}" if files else ""
