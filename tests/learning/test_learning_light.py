"""The light preset learns through RLlib as docs/results.md says. Hours: `make test-learning`."""

from collections.abc import Callable
from statistics import fmean

import pytest
from recorded import late, least, recorded

from tdmpc_ray.studies.results.study_runs import StudyRuns

pytestmark = [pytest.mark.learning, pytest.mark.timeout(12 * 3600)]


@pytest.mark.parametrize(
    ("file", "label", "task"),
    [
        ("light_walker_walk.yaml", "in turns", "walker-walk"),
        ("light_cartpole_balance.yaml", "in turns", "cartpole-balance"),
    ],
)
def test_three_seeds(file: str, label: str, task: str, learn: Callable[[str], StudyRuns]) -> None:
    curves = learn(file).curves
    assert fmean(late(curves)) >= least(late(recorded(label, task)))
