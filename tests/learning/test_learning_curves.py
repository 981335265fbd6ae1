"""Size 1 beside the published curves of size 5, as in docs/results.md. Hours each: `make test-learning`."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

import pytest

from tdmpc_ray.envs import random_return, task_info
from tdmpc_ray.studies.results.published import against_published
from tdmpc_ray.studies.results.study_runs import StudyRuns, load_study_runs
from tdmpc_ray.studies.tracking.client import DEFAULT_URI

pytestmark = [pytest.mark.learning, pytest.mark.timeout(6 * 3600)]


@pytest.mark.parametrize(
    ("file", "share"),
    [
        ("curve_walker_walk.yaml", 0.8),
        # A fifth of the published model and an eighth of its candidates: half tells learning from a defect.
        ("curve_cheetah_run.yaml", 0.5),
        ("curve_finger_spin.yaml", 0.5),
        ("curve_reacher_easy.yaml", 0.5),
        ("curve_mw_drawer_open.yaml", 0.5),
        ("curve_cheetah_jump.yaml", 0.5),
    ],
)
def test_100_000_frames_beside_the_published_curve(
    file: str, share: float, learn: Callable[[str], StudyRuns]
) -> None:
    (row,) = against_published(learn(file), ["tdmpc2"]).to_dict("records")
    assert row["env_frames"] == 100_000
    assert row["value"] >= share * row["published"]


@pytest.mark.parametrize(
    ("file", "least"),
    [
        # Well above a random policy, and two thirds of what docs/results.md has.
        ("curve_cartpole_swingup.yaml", 420),
        ("curve_mw_reach.yaml", 0.6),
        ("ablation_policy.yaml", 580),
        ("ablation_simnorm.yaml", 630),
        ("ablation_mse.yaml", 600),
        ("curve_pixels.yaml", 180),
    ],
)
def test_shorter_runs_learn(file: str, least: float, learn: Callable[[str], StudyRuns]) -> None:
    assert learn(file).curves.value.max() >= least


def test_a_task_with_terminations_is_solved(learn: Callable[[str], StudyRuns]) -> None:
    assert learn("curve_inverted_pendulum.yaml").curves.value.max() == 1000.0


def test_each_of_four_tasks_of_one_model_improves(learn: Callable[[str], StudyRuns]) -> None:
    runs = learn("multitask_small.yaml")
    (name,) = runs.tasks
    for task in task_info(name).tasks:
        curve = load_study_runs(runs.experiment, DEFAULT_URI, runs.study, metric=f"eval/{task}/return").curves
        untrained = fmean(random_return(task, 5, seed=0))
        assert curve.value.iloc[-1] > untrained + 100, task
