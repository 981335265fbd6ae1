"""A study's folder on disk: what it holds, and who may use it.

study.yaml     the study with every default written out: all that a resume needs
tune/          Tune's state; tune/<trial>/checkpoint_*, logs, error.txt
mlflow/        what MLflow has not got yet, and study.yaml as the study has begun with it
baseline.json  the random policy's return
python_path.txt  the folder of the file that it was read from
scaling.png    the figure
metrics.csv    every result of every trial, a row each (see `metrics_file`)
result.json    how the study stands (see `record`)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.files import LOCK_FILE, STUDY_FILE, TRACKING_FOLDER
from tdmpc_ray.studies.file.growth import growth
from tdmpc_ray.studies.file.load import load_study, make_study, merged
from tdmpc_ray.studies.file.reading import read_mapping
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.tracking.client import without_secrets, write_private
from tdmpc_ray.studies.tracking.study_run import StudyRun
from tdmpc_ray.studies.words import shown

FIGURE_FILE = "scaling.png"
_PLACE_FILE = "place.txt"  # in the tracking folder: where the study lay when it last went on


def begin(study: Study, out: Path, study_file: Path | None) -> list[Path]:
    """Make a study's folder; returns the files to attach to its run, free of passwords.

    Raises:
        UserError: it cannot be written.
    """
    texts = {STUDY_FILE: study.public().to_yaml(out)}
    files = []
    try:
        if study_file is not None and study_file.is_file():  # not a pipe, which has been read
            name = study_file.name
            given = without_secrets(study_file.read_text(encoding="utf-8"))
            texts[f"given_{name}" if name == STUDY_FILE else name] = given
        (out / TRACKING_FOLDER).mkdir(parents=True, exist_ok=True)
        write_private(out / STUDY_FILE, study.to_yaml(out))
        (out / TRACKING_FOLDER / _PLACE_FILE).write_text(f"{out}\n", encoding="utf-8")
        for name, text in texts.items():
            files.append(out / TRACKING_FOLDER / name)
            files[-1].write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from None
    return files


@contextlib.contextmanager
def only_process(out: Path, *, makes: bool = False) -> Iterator[None]:
    """Keep a second process away from a study's folder; the system lets go of it when this one dies.

    Args:
        out: the folder.
        makes: if absent, it is made.

    Raises:
        UserError: another process has it, or it cannot be made.
    """
    try:
        if makes:
            out.mkdir(parents=True, exist_ok=True)
        held = FileLock(out / LOCK_FILE, timeout=0).acquire()
    except Timeout:
        raise UserError(f"{shown(out)} is in use: another process is running this study") from None
    except OSError as error:
        way_out = "; choose another --out" if makes else ""
        raise UserError(f"cannot write to {out}: {error.strerror}{way_out}") from None
    with held:
        yield


def require_empty(out: Path) -> None:
    """Refuse a folder for a new study that has something in it.

    Raises:
        UserError: says so.
    """
    if not os.path.isdir(out) or all(path.name == LOCK_FILE for path in out.iterdir()):
        return
    if (out / STUDY_FILE).exists():
        again = f"continue it with `tdmpc-ray resume {shown(out)}` or choose another --out"
        raise UserError(f"{out} is not empty: {again}")
    raise UserError(f"{out} holds something else: choose a new folder, such as --out {shown(out / 'NAME')}")


def original(out: Path) -> Path | None:
    """The folder that a study's was copied from, where that is still there; notes where it lies now."""
    note, key = out / TRACKING_FOLDER / _PLACE_FILE, StudyRun.saved_uid(out / TRACKING_FOLDER)
    before = Path(note.read_text(encoding="utf-8").strip()) if note.is_file() else out
    if note.parent.is_dir():
        note.write_text(f"{out}\n", encoding="utf-8")
    is_copy = before != out and key is not None and StudyRun.saved_uid(before / TRACKING_FOLDER) == key
    return before if is_copy else None


def going_on(
    out: Path, changes: Mapping[str, Any], *, has_trials: Callable[[], bool]
) -> tuple[Study, list[str]]:
    """A study that goes on, and what it tries more than when it began.

    Args:
        out: its folder; paths in its file begin there.
        has_trials: whether Tune has saved any.
        changes: keys of its file to values that replace those there.

    Raises:
        UserError: its file is wrong, or says what its trials cannot take.
    """
    file, begun = out / STUDY_FILE, out / TRACKING_FOLDER / STUDY_FILE
    now = make_study(merged(read_mapping(file), changes), folder=out) if changes else load_study(file, out)
    if not (begun.is_file() and has_trials()):
        return now, []
    try:
        return now, growth(load_study(begun, folder=out), now)
    except UserError as error:
        raise UserError(f"{shown(file)}: {error}") from None
