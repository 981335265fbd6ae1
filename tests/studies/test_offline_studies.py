"""Studies that learn from a dataset alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tdmpc_ray.datasets.episode import Episode
from tdmpc_ray.datasets.manifest import Source
from tdmpc_ray.datasets.writer import writing
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.load import load_study, make_study
from tdmpc_ray.studies.file.notes import notes
from tdmpc_ray.studies.file.record import local_runs
from tdmpc_ray.studies.plan.labels import steps
from tdmpc_ray.studies.plan.sizing import predict
from tdmpc_ray.studies.plan.speeds import measure_speeds
from tdmpc_ray.studies.results.figures import scaling_figure
from tdmpc_ray.studies.results.study_runs import load_study_runs
from tdmpc_ray.studies.run.runner import resume_study, run_study


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    rng, folder = np.random.default_rng(0), tmp_path / "data"
    with writing(folder) as writer:
        source = writer.begin(Source(kind="episodes", place="random"))
        numbers = (rng.standard_normal((51, 5)), rng.uniform(-1, 1, (50, 1)), rng.uniform(0, 1, 50))
        numbers = tuple(array.astype(np.float32) for array in numbers)
        writer.add(Episode("an episode", *numbers), source, "cartpole-balance")
    return folder


def values(dataset: Path, store: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": "offline",
        "task": "cartpole-balance",
        "preset": "light",
        "model_sizes": ["tiny"],
        "updates": 40,
        "set": {"data.dataset": str(dataset), "update.batch_size": 8, "planner.iterations": 1},
        "evaluation": {"every": 20, "episodes": 1},
        "tracking": {"uri": store, "experiment": "exp"},
        **changes,
    }


def test_steps_are_updates_in_the_file_and_in_words(dataset: Path, store: str, tmp_path: Path) -> None:
    study = make_study(values(dataset, store))
    assert (study.steps, study.is_offline, str(study.kind)) == (40, True, "offline")
    assert steps(study) == "40 updates"
    assert notes(study) == []
    (tmp_path / "study.yaml").write_text(study.to_yaml())
    assert load_study(tmp_path / "study.yaml").steps == 40
    measured = measure_speeds(study, core_gflops=10, env_ms=1.0)
    trial = predict(study, study.points()[0], measured)
    assert trial.train_flops == 40 * trial.update_flops
    assert (trial.act_flops, trial.rate) == (0.0, 1 / trial.update_s)
    for changes, message in (
        ({"steps": 50}, "give either steps, or updates with data.dataset"),
        ({"set": {}}, "learning by updates alone needs data.dataset in set"),
    ):
        with pytest.raises(UserError, match=message):
            make_study(values(dataset, store, **changes))


def test_a_study_runs_on_updates_and_gets_more_of_them(
    local_ray: None, dataset: Path, store: str, tmp_path: Path
) -> None:
    console = Console(file=io.StringIO(), width=120)
    assert run_study(make_study(values(dataset, store)), tmp_path / "out", console=console).finished == 1
    assert resume_study(tmp_path / "out", console=console, changes={"steps": 60}).finished == 1
    (run,) = local_runs([tmp_path / "out"])
    assert (run.env_steps, run.steps) == (60, 60)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "starting offline: 1 trial of 40 updates on cartpole-balance" in text
    assert " updates  hours" in text
    runs = load_study_runs("exp", store)
    assert runs.curves["env_steps"].tolist() == [20, 40, 60]
    assert runs.trials["env_steps"].tolist() == [60]
    assert scaling_figure(runs).get_axes()[0].get_xlabel() == "updates"
