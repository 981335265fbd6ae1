"""Modules beside a study file can be imported, such as `lab.py` of `task: gym:lab:Arm-v0`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_FILE = "python_path.txt"  # in the study's folder: where its file lay, or where `train` was called from


def use_folder(folder: Path) -> None:
    """Put a folder on the Python path of this process and of all that it starts, Ray's workers among them."""
    path = os.path.abspath(folder)
    if path not in sys.path:
        sys.path.insert(0, path)
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if path not in known:
        os.environ["PYTHONPATH"] = os.pathsep.join([path, *filter(None, known)])


def use_working_folder() -> None:
    """Modules in the folder that a command is called from can be imported, after all that is installed."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def use_folder_of(study_file: Path) -> None:
    """`use_folder` of a study that begins; a pipe lies in none."""
    if study_file.is_file():
        use_folder(study_file.parent)


def folder_of_task(task: str) -> Path | None:
    """Where the module of a task that names one is looked for, as of `gym:lab:Arm-v0`: the working folder."""
    return Path.cwd() if task.startswith("gym:") and task.count(":") > 1 else None


def remember_folder(out: Path, folder: Path) -> None:
    """Note in a study's folder where modules lie that it needs, for `use_folder_again`."""
    (out / _FILE).write_text(f"{os.path.abspath(folder)}\n", encoding="utf-8")


def use_folder_again(out: Path) -> None:
    """`use_folder` of a study that goes on, where that folder is still there."""
    file = out / _FILE
    folder = Path(file.read_text(encoding="utf-8").strip()) if file.is_file() else None
    if folder is not None and folder.is_dir():
        use_folder(folder)
