"""Runs a study of experiments/ from its start to its end, with three seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from recorded import SEEDS

from tdmpc_ray.studies.file.load import load_study
from tdmpc_ray.studies.results.study_runs import StudyRuns, load_study_runs
from tdmpc_ray.studies.run.runner import run_study

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], StudyRuns]:
    """Run a study file in an empty folder and read its runs back from MLflow."""

    def run(file: str) -> StudyRuns:
        monkeypatch.chdir(tmp_path)
        study = load_study(EXPERIMENTS / file).model_copy(update={"seeds": SEEDS})
        assert run_study(study, tmp_path / "out").exit_status == 0
        return load_study_runs(study.tracking.experiment, study.tracking.uri, study.name)

    return run
