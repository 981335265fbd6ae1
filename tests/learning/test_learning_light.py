"""The light preset learns through RLlib as docs/results.md says. Hours: `make test-learning`."""

from collections.abc import Callable

import pytest

from tdmpc_ray.studies.results.study_runs import StudyRuns

pytestmark = [pytest.mark.learning, pytest.mark.timeout(6 * 3600)]


def test_walker_walk(learn: Callable[[str], StudyRuns]) -> None:
    curves = learn("light_walker_walk.yaml").curves
    late = curves[curves.env_steps.isin([10_000, 12_500, 15_000])]
    assert len(late) == 9
    assert late.value.mean() >= 600


def test_cartpole_balance(learn: Callable[[str], StudyRuns]) -> None:
    curves = learn("light_cartpole_balance.yaml").curves
    assert sum(curves.groupby("seed").value.max() > 850) >= 2
