"""Which studies of MLflow a user names: by experiment and study, or by result folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tdmpc_ray.addresses import refuse_address
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.files import STUDY_FILE, TRACKING_FOLDER, existing
from tdmpc_ray.studies.file.record import waits
from tdmpc_ray.studies.tracking.client import default_uri, public_uri
from tdmpc_ray.studies.tracking.study_run import StudyRun
from tdmpc_ray.studies.words import shown


class Named(NamedTuple):
    """Studies in MLflow."""

    experiment: str
    uri: str
    studies: list[str] | None  # names, run ids or uids; None: the newest


def named_studies(what: Sequence[str], studies: Sequence[str] | None, uri: str | None) -> Named:
    """Find out what is meant.

    Args:
        what: an experiment's name, or result folders.
        studies: names or run ids of studies in the experiment; none: the newest.
        uri: address of MLflow; None: that of the folders, or the environment's.

    Raises:
        UserError: a folder is no study's, or the studies do not lie in one experiment of one MLflow.
    """
    folders = [text for text in what if _is_folder(text)]
    if not folders:
        if len(what) > 1:
            raise UserError(f"one experiment at a time, not {', '.join(what)}: name its studies with --study")
        return Named(what[0], uri or default_uri(), [*studies] if studies else None)
    if studies or len(folders) < len(what):
        names = dict.fromkeys([*what, *(studies or ())])
        others = ", ".join(name for name in names if name not in folders)
        raise UserError(f"give result folders or an experiment, not both: '{others}' is no result folder")
    runs = [StudyRun.open(existing(Path(folder)) / TRACKING_FOLDER) for folder in folders]
    places = {(uri or run.uri, run.experiment): run for run in runs}
    if len(places) > 1:
        where = " and ".join(f"'{run.experiment}' at {public_uri(run.uri)}" for run in places.values())
        raise UserError(f"these studies lie in several experiments of MLflow ({where}): choose one's folders")
    return Named(runs[0].experiment, uri or runs[0].uri, [run.uid for run in runs])


@contextmanager
def pointing_to_sync(what: Sequence[str]) -> Iterator[None]:
    """Within, what is wrong with result folders is answered with the command that brings MLflow the rest.

    Raises:
        UserError: one was raised within, and of a folder MLflow has not got all.
    """
    try:
        yield
    except UserError as error:
        left = [shown(text) for text in what if _is_folder(text) and waits(Path(text))]
        if not left:
            raise
        raise UserError(
            f"MLflow has not got all of {', '.join(left)}: bring it with `tdmpc-ray sync {left[0]}` ({error})"
        ) from None


def _is_folder(text: str) -> bool:
    """An experiment may be called like a folder, such as that of the clone, or /Users/NAME on Databricks."""
    refuse_address(Path(text))
    path = Path(text)
    return (path / STUDY_FILE).is_file() or ("/" in text and (path.is_dir() or not path.is_absolute()))
