"""What MLflow could not get while a study ran, brought to it later."""

from __future__ import annotations

from pathlib import Path

from tdmpc_ray.studies.file.files import STUDY_FILE, TRACKING_FOLDER
from tdmpc_ray.studies.file.load import load_study
from tdmpc_ray.studies.file.place import StudyPlace
from tdmpc_ray.studies.tracking.spooled import Replay, replay_spool


def sync_study(out: str | Path, uri: str | None = None) -> Replay:
    """Bring to MLflow what a study could not deliver, or MLflow refused; doing it twice changes nothing.

    Args:
        out: the study's folder, or its address.
        uri: address of MLflow; None: the study's.

    Raises:
        UserError: the folder is no study's, a process runs it, or MLflow does not answer.
    """
    place = StudyPlace.of(out)
    place.require_study()
    with place.taken(print):
        address = uri or load_study(place.out / STUDY_FILE).tracking.uri
        return replay_spool(address, place.out / TRACKING_FOLDER)
