"""The studies of docs/results.md at size 1, each with three seeds. Hours each: `make test-learning`."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

import pytest
from recorded import late, least, recorded

from tdmpc_ray.envs import random_return, task_info
from tdmpc_ray.studies.results.published import against_published
from tdmpc_ray.studies.results.study_runs import StudyRuns, load_study_runs
from tdmpc_ray.studies.tracking.client import DEFAULT_URI

pytestmark = [pytest.mark.learning, pytest.mark.timeout(24 * 3600)]


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
    runs = learn(file)
    (row,) = against_published(runs, ["tdmpc2"]).to_dict("records")
    assert row["env_frames"] == 100_000
    reached = fmean(late(runs.curves))
    assert reached >= share * row["published"]
    assert reached >= least(late(recorded(runs.study)))


@pytest.mark.parametrize(
    "file",
    [
        "curve_cartpole_swingup.yaml",
        "curve_mw_reach.yaml",
        "ablation_policy.yaml",
        "ablation_simnorm.yaml",
        "ablation_mse.yaml",
        "curve_pixels.yaml",
        "curve_inverted_pendulum.yaml",  # with terminations
    ],
)
def test_shorter_runs_learn(file: str, learn: Callable[[str], StudyRuns]) -> None:
    runs = learn(file)
    assert fmean(late(runs.curves)) >= least(late(recorded(runs.study)))


def test_each_of_four_tasks_of_one_model_improves(learn: Callable[[str], StudyRuns]) -> None:
    runs = learn("multitask_small.yaml")
    (name,) = runs.tasks
    for task in task_info(name).tasks:
        curves = load_study_runs(
            runs.experiment, DEFAULT_URI, runs.study, metric=f"eval/{task}/return"
        ).curves
        untrained = fmean(random_return(task, 5, seed=0))
        reached = fmean(late(curves))
        assert reached > untrained + 100, task
        assert reached >= least(late(recorded(runs.study, task))), task
