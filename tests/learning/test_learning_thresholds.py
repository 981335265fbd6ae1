"""What learning runs have to reach lies between a random policy and the runs of docs/results.md."""

import pandas as pd
import pytest
from recorded import DATA, SEEDS, late, least, recorded

CURVES = pd.read_csv(DATA / "curves.csv").groupby(["study", "task"]).random_return.first()
LIGHT = [("in turns", "walker-walk"), ("in turns", "cartpole-balance")]


@pytest.mark.parametrize(("study", "task"), [*CURVES.index, *LIGHT])
def test_no_recorded_seed_fails_and_no_random_policy_passes(study: str, task: str) -> None:
    runs = recorded(study, task)
    threshold = least(late(runs))
    assert min(late(runs)) > threshold
    if runs.metric.iloc[0] == "eval/return":
        assert threshold > 1.5 * CURVES[study, task]


def test_a_threshold_is_a_mean_of_late_evaluations_less_two_deviations() -> None:
    curves = pd.DataFrame({"seed": [1] * 3 + [2] * 3 + [3] * 3, "env_steps": [5, 10, 15] * 3})
    curves["value"] = [0.0, 5.0, 15.0, 99.0, 15.0, 25.0, 0.0, 25.0, 35.0]
    assert late(curves) == [10.0, 20.0, 30.0]
    assert least([10.0, 20.0, 30.0], num_seeds=len(SEEDS)) == pytest.approx(20 - 2 * 10 * (2 / 3) ** 0.5)
