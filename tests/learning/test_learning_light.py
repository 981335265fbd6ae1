"""The light preset learns through RLlib as docs/results.md says. Hours: `make test-learning`."""

from pathlib import Path

import pytest

from tdmpc_ray.studies.runner import run_study
from tdmpc_ray.studies.spec import load_study
from tdmpc_ray.studies.study_runs import load_study_runs

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
pytestmark = [pytest.mark.learning, pytest.mark.timeout(6 * 3600)]


def evaluations(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # -> pandas.DataFrame
    """Run a study in an empty folder; its evaluations, one row each."""
    monkeypatch.chdir(tmp_path)
    study = load_study(EXPERIMENTS / file)
    assert run_study(study, tmp_path / "out").exit_status == 0
    return load_study_runs(study.tracking.experiment, study.tracking.uri, study.name).curves


def test_walker_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curves = evaluations("light_walker_walk.yaml", tmp_path, monkeypatch)
    late = curves[curves.env_steps.isin([10_000, 12_500, 15_000])]
    assert len(late) == 9
    assert late.value.mean() >= 600


def test_cartpole_balance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curves = evaluations("light_cartpole_balance.yaml", tmp_path, monkeypatch)
    assert sum(curves.groupby("seed").value.max() > 850) >= 2
