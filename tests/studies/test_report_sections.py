"""What the sections of a report compare, and on what scale."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from report_lab import LRS, runs_of
from synthetic import EXPERIMENT, PARAMS, STEPS, train_flops, wall_s

from tdmpc_ray.studies.results.analysis.build import _best, build_report
from tdmpc_ray.studies.results.analysis.comparison import aggregates
from tdmpc_ray.studies.results.analysis.cost import throughput
from tdmpc_ray.studies.results.analysis.embedding import embeddings
from tdmpc_ray.studies.results.analysis.frontier import _last_steps, frontier
from tdmpc_ray.studies.results.analysis.search import parallel_coordinates, search_points
from tdmpc_ray.studies.results.analysis.section import Evidence
from tdmpc_ray.studies.results.analysis.sizes import size_results
from tdmpc_ray.studies.results.random_policy import RUN_IDS
from tdmpc_ray.studies.results.study_runs import load_study_runs
from tdmpc_ray.studies.results.trial_rows import ENERGY_WH
from tdmpc_ray.studies.tracking.client import connect


def test_tasks_weigh_alike_in_the_results_of_sizes(lab: SimpleNamespace) -> None:
    runs = load_study_runs(EXPERIMENT, lab.uri, "sizes")
    trials = runs.trials.copy()
    trials.loc[trials["task"] == "cheetah-run", "final"] /= 2
    results = size_results(Evidence(replace(runs, trials=trials)))
    assert [result.params for result in results] == [*PARAMS.values()]
    for result in results:
        means = trials[trials["model_size"] == result.group[0]].groupby("task")["final"].mean()
        assert result.values.mean() == pytest.approx(means.sum() / 2000)


def test_a_mean_is_not_called_iqm_and_tasks_weigh_alike(lab: SimpleNamespace) -> None:
    two_seeds = Evidence(load_study_runs(EXPERIMENT, lab.uri, "workers"))
    said = "what stands as IQM is the mean (num_env_runners=1, num_env_runners=4)."
    assert any(said in text for text in aggregates(two_seeds).text)
    assert ": mean of scores 0." in _best(two_seeds)
    runs = load_study_runs(EXPERIMENT, lab.uri, "sizes")
    assert ": IQM of scores 0." in _best(Evidence(runs))
    is_gone = (runs.trials["task"] == "walker-walk") & (runs.trials["seed"] != "0")
    trials = runs.trials.copy()
    trials.loc[trials["task"] == "walker-walk", "final"] = 900.0
    evidence = Evidence(replace(runs, trials=trials[~is_gone]))
    section = aggregates(evidence)
    assert any("a task with more of them weighs more (size 1, size 5" in text for text in section.text)
    assert section.table is not None
    cheetah = evidence.trials[evidence.trials["task"] == "cheetah-run"].groupby("model_size")["score"].mean()
    learned = section.table[section.table["model_size"] != "random policy"]
    for row in learned.itertuples():
        assert row.mean == pytest.approx((0.9 + cheetah[row.model_size]) / 2)
        assert row.mean_low <= row.mean <= row.mean_high
    assert search_points(evidence)["score"].tolist() == pytest.approx(sorted(learned["mean"], reverse=True))


def test_planning_is_a_part_of_what_the_frontier_costs(lab: SimpleNamespace) -> None:
    runs = runs_of(lab, "planners")
    table = frontier(Evidence(runs)).table
    assert table is not None
    # The dearer one has to earn its place.
    assert table["setting"].tolist() == ["", "horizon=1", "horizon=3"]
    assert table["from_flops"].tolist()[2] > 6 * train_flops("1", STEPS[-1])
    assert table["to_flops"].tolist()[2] == pytest.approx(16 * train_flops("1", STEPS[-1]))
    total = {s.key: s for s in build_report(runs).sections}["costs"].table.iloc[-1]  # type: ignore[union-attr]
    assert total["act_flops"] == pytest.approx(20 * train_flops("1", STEPS[-1]))
    assert total["sim_hours"] == pytest.approx(2 * STEPS[-1] / 100 / 3600)
    assert "have not logged" not in Evidence(runs).flops_words()
    assert "30 of 30 runs have not logged planning's" in Evidence(runs_of(lab, "sizes")).flops_words()


def test_a_size_that_ends_below_the_frontier_has_no_say_in_its_law() -> None:
    small, medium, large = ("1", ""), ("5", ""), ("19", "")
    lines = {
        small: (np.array([1.0, 2.0, 4.0]), np.array([0.1, 0.3, 0.5])),
        medium: (np.array([3.0, 6.0, 9.0]), np.array([0.2, 0.4, 0.45])),
        large: (np.array([5.0, 10.0, 20.0]), np.array([0.0, 0.7, 0.8])),
    }
    assert _last_steps(lines) == [(4.0, small), (20.0, large)]


def test_a_search_is_shown_and_its_setting_matters(lab: SimpleNamespace) -> None:
    report = build_report(runs_of(lab, "search"))
    sections = {section.key: section for section in report.sections}
    points = sections["search"].table
    assert points is not None
    assert points["model_size"].tolist() == ["1"] * len(LRS) + ["random policy"]
    assert points["lr"].tolist()[:-1] == pytest.approx(sorted(LRS, reverse=True))
    found = sections["importance"].table
    assert found is not None
    assert (found["setting"].tolist(), found["importance"].tolist()) == (
        ["lr"],
        pytest.approx([1.0], abs=0.05),
    )
    shown = sections["results"]
    assert any("the 8 best of 12" in sentence for sentence in shown.text)


def test_throughput_and_costs_add_up(lab: SimpleNamespace) -> None:
    runs = runs_of(lab, "workers")
    table = throughput(Evidence(runs)).table
    assert table is not None
    assert table["rollout_workers"].tolist() == [1, 4]
    seconds = [wall_s("1", STEPS[-1]) * factor for factor in (0.95, 1.05)]
    assert table["steps_per_s"].tolist() == pytest.approx([np.mean([STEPS[-1] / s for s in seconds])] * 2)
    total = {s.key: s for s in build_report(runs).sections}["costs"].table.iloc[-1]  # type: ignore[union-attr]
    assert total["hours"] == pytest.approx(2 * sum(seconds) / 3600)
    assert total["train_flops"] == pytest.approx(4 * 6 * PARAMS["1"] * 256 * STEPS[-1])
    assert set(total[RUN_IDS]) == set(runs.trials["run_id"])
    assert "energy_kwh" not in total


def test_embeddings_are_a_map_of_the_best_run_of_each_size(lab: SimpleNamespace) -> None:
    runs = runs_of(lab, "sizes")
    assert "embeddings" not in {section.key for section in build_report(runs).sections}
    places = {"walker-walk": (0.0, 0.0), "walker-run": (0.0, 1.0), "cup-catch": (3.0, 0.0)}
    found = [
        {"run_id": run_id, "task": task, "x": factor * x, "y": factor * y, "shown": 0.8}
        for factor, run_id in enumerate(runs.trials["run_id"], 1)
        for task, (x, y) in places.items()
    ]
    section = embeddings(Evidence(replace(runs, embeddings=pd.DataFrame(found))))
    assert [picture.name for picture in section.pictures] == [f"embeddings_{size}" for size in runs.sizes]
    for row in section.table.to_dict("records"):  # type: ignore[union-attr]
        (run_id,) = row[RUN_IDS]
        of_size = runs.trials[runs.trials["model_size"] == row["model_size"]]
        assert run_id == of_size.loc[of_size["final"].idxmax(), "run_id"]
        factor = list(runs.trials["run_id"]).index(run_id) + 1
        assert row["within a body"] == pytest.approx(factor)
        assert row["between bodies"] == pytest.approx(factor * (3 + 10**0.5) / 2)


def test_energy_is_what_was_logged_last(lab: SimpleNamespace) -> None:
    client = connect(lab.uri)
    run_id = load_study_runs(EXPERIMENT, lab.uri, "alone").trials["run_id"].iloc[0]
    for step, watt_hours in ((10, 250.0), (20, 600.0)):
        client.log_metric(run_id, ENERGY_WH, watt_hours, step=step)
    assert runs_of(lab, "alone").trials["energy_kwh"].tolist() == [0.6]


def test_groups_that_lack_a_task_are_not_compared(lab: SimpleNamespace) -> None:
    runs = runs_of(lab, "sizes")
    lacks = (runs.trials["model_size"] == "5") & (runs.trials["task"] == "walker-walk")
    evidence = Evidence(replace(runs, trials=runs.trials[~lacks]))
    assert ("5", "") not in evidence.complete
    assert any("size 5" in sentence for sentence in evidence.left_out())
    assert "model_size" not in search_points(Evidence(runs_of(lab, "workers")))


def test_runs_of_different_tasks_have_a_report_all_the_same(lab: SimpleNamespace) -> None:
    runs = runs_of(lab, "sizes")
    apart = (runs.trials["model_size"] == "1") == (runs.trials["task"] == "walker-walk")
    runs = replace(runs, trials=runs.trials[apart & runs.trials["model_size"].isin(["1", "5"])])
    assert not Evidence(runs).complete
    for section in build_report(runs).sections:
        assert section.table is None or RUN_IDS in section.table, section.key


def test_a_run_that_leaves_a_setting_to_its_preset_has_it_in_the_report(lab: SimpleNamespace) -> None:
    runs = runs_of(lab, "planners")
    trials = runs.trials.assign(**{"param.preset": "paper"})
    first = trials["param.planner.horizon"] == trials["param.planner.horizon"].iloc[0]
    trials.loc[first, "param.planner.horizon"] = None
    evidence = Evidence(replace(runs, trials=trials))
    assert search_points(evidence)["horizon"].isin([1.0, 3.0]).all()
    assert parallel_coordinates(evidence).pictures
    unknown = trials.assign(**{"param.planner.horizon": trials["param.planner.horizon"].where(~first, None)})
    evidence = Evidence(replace(runs, trials=unknown.drop(columns="param.preset")))
    assert set(search_points(evidence)["horizon"].astype(str)) >= {"not set"}
    assert parallel_coordinates(evidence).pictures
