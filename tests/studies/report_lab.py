"""A store with studies that a report can be made of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import Callbacks, fake_trial
from synthetic import EXPERIMENT, log_study

from tdmpc_ray.studies.results.costs import with_costs
from tdmpc_ray.studies.results.study_runs import StudyRuns, load_study_runs

LRS = [10**exponent for exponent in np.linspace(-4, -2, 12)]


@pytest.fixture(scope="session")
def lab(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A store with the studies `sizes`, `search`, `workers` and `alone`: `uri` and `folder`."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    uri = f"sqlite:///{folder}/mlflow.db"
    drive: Any = lambda callback: Callbacks(callback)  # noqa: E731
    drive.trial = fake_trial
    one: Any = {"tasks": ("walker-walk",), "sizes": ("1",), "seeds": 1}
    log_study(drive, uri, folder, "alone", **one)
    lrs = [{"update.lr": lr} for lr in LRS]
    log_study(
        drive, uri, folder, "search", **one, settings=lrs, noise=0, bonus=lambda s: 1e4 * s["update.lr"]
    )
    workers = [{"resources.num_env_runners": number} for number in (1, 4)]
    log_study(drive, uri, folder, "workers", **{**one, "seeds": 2}, settings=workers)
    planners = [{"planner.horizon": horizon} for horizon in (1, 3)]
    log_study(
        drive,
        uri,
        folder,
        "planners",
        **one,
        settings=planners,
        noise=0,
        bonus=lambda s: 25.0 * s["planner.horizon"],
        acting=lambda s: 5.0 * s["planner.horizon"],
    )
    log_study(drive, uri, folder, "sizes")
    return SimpleNamespace(uri=uri, folder=folder)


def runs_of(lab: SimpleNamespace, study: str) -> StudyRuns:
    return with_costs(load_study_runs(EXPERIMENT, lab.uri, study), lab.uri)
