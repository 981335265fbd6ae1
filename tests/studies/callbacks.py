"""A callback of MLflow for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tdmpc_ray.studies.tracking.callback import MLflowTracker

NOBODY = "http://127.0.0.1:9"


def make(uri: str, folder: Path, study: str = "study", **values: Any) -> MLflowTracker:
    return MLflowTracker(uri=uri, experiment="exp", study=study, spool_dir=folder, **values)
