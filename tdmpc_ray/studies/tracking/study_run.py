"""The run that stands for a whole study in MLflow: the parent of its trials' runs."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.tracking import ops as run_ops
from tdmpc_ray.studies.tracking.client import public_uri, write_private
from tdmpc_ray.studies.tracking.naming import clean_metrics
from tdmpc_ray.studies.tracking.writer import RunWriter

logger = logging.getLogger("tdmpc_ray.tracking")

STUDY_FILE = "tracking.json"
STOPPED_EARLY = "stopped_early"  # tag of a trial that a scheduler has ended
ENOUGH = "enough"  # tag of one that ended early because the study's `stop` said so: its result counts
FAILURE = "failure"  # tag of a trial that has failed: why
RANDOM_RETURN = "baseline/random_return"
EVALUATION_EVERY = "evaluation_every"  # tag of a study: agent steps from one evaluation to the next


class StudyRun:
    """Adds to a study's own run, without waiting for MLflow; `flush` at the end.

    Args:
        uri: address of MLflow.
        experiment: name of the experiment.
        study: name of the study.
        uid: key of the study's run, unique among all studies.
        folder: the study's folder for what MLflow has not got yet.
        run_ids: run keys to MLflow's run ids, as far as known.
    """

    def __init__(
        self,
        *,
        uri: str,
        experiment: str,
        study: str,
        uid: str,
        folder: Path,
        run_ids: Mapping[str, str] | None = None,
    ) -> None:
        self.uri = uri
        self.experiment = experiment
        self.study = study
        self.uid = uid
        self.folder = folder
        self.writer = RunWriter(uri, experiment, folder, dict(run_ids or {}))

    @classmethod
    def open(cls, folder: Path) -> StudyRun:
        """Return the run of the study that was tracked with `folder` as its spool folder.

        Raises:
            UserError: no study was tracked there.
        """
        file = Path(folder) / STUDY_FILE
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")), folder=Path(folder).absolute())
        except (OSError, ValueError, TypeError):
            raise UserError(f"no study was tracked in {folder}: {STUDY_FILE} is missing or damaged") from None

    @staticmethod
    def saved_uid(folder: Path) -> str | None:
        """The key of the study that was tracked with `folder`; None where none was."""
        try:
            return str(json.loads((folder / STUDY_FILE).read_text(encoding="utf-8"))["uid"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self) -> None:
        """Write what `open` needs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        saved = {"uri": self.uri, "experiment": self.experiment, "study": self.study, "uid": self.uid}
        write_private(self.folder / STUDY_FILE, json.dumps(saved, indent=1))

    @property
    def run_id(self) -> str | None:
        """MLflow's id of this run; None where MLflow has not answered yet."""
        return self.writer.find(self.uid)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Attach a file."""
        self.writer.put(run_ops.artifact(self.uid, Path(path), folder))

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics; values that are not finite are left out."""
        kept, _ = clean_metrics(values)
        self.writer.put(run_ops.metrics(self.uid, kept, step=step, time=now_ms()))

    def flush(self, timeout_s: float = 30.0) -> Path | None:
        """Wait until MLflow has everything, at most `timeout_s` seconds.

        Returns:
            The spool file if MLflow lacks something still, which a warning says too; else None.
        """
        left = self.writer.close(timeout_s)
        if left is not None:
            logger.warning(
                "MLflow at %s did not take everything: the rest lies in %s; resume the study to deliver it",
                public_uri(self.uri),
                left,
            )
        return left


def now_ms() -> int:
    """Milliseconds since the epoch, MLflow's unit of time."""
    return int(time.time() * 1000)
