"""What MLflow could not get while a study ran, brought to it later."""

from __future__ import annotations

from pathlib import Path

from tdmpc_ray.studies.file.folder import STUDY_FILE, TRACKING_FOLDER, existing, only_process
from tdmpc_ray.studies.file.load import load_study
from tdmpc_ray.studies.tracking.spooled import Replay, replay_spool


def sync_study(out: Path, uri: str | None = None) -> Replay:
    """Bring to MLflow what a study could not deliver, or MLflow refused; doing it twice changes nothing.

    Args:
        out: the study's folder.
        uri: address of MLflow; None: the study's.

    Raises:
        UserError: the folder is no study's, a process runs it, or MLflow does not answer.
    """
    out = existing(out)
    with only_process(out):
        return replay_spool(uri or load_study(out / STUDY_FILE).tracking.uri, out / TRACKING_FOLDER)
