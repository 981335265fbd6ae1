"""What is concluded from a study depends on its kind: populations, early stopping."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.results.analysis.build import _best, _facts
from tdmpc_ray.studies.results.analysis.comparison import aggregates
from tdmpc_ray.studies.results.analysis.cost import costs
from tdmpc_ray.studies.results.analysis.frontier import frontier, frontier_law
from tdmpc_ray.studies.results.analysis.population import movement
from tdmpc_ray.studies.results.analysis.search import importance_section, parallel_coordinates, search_points
from tdmpc_ray.studies.results.analysis.section import Evidence
from tdmpc_ray.studies.results.compare import render_table
from tdmpc_ray.studies.results.costs import with_costs
from tdmpc_ray.studies.results.figures import scaling_figure, shown_groups
from tdmpc_ray.studies.results.histories import Point
from tdmpc_ray.studies.results.study_runs import StudyRuns, load_study_runs
from tdmpc_ray.studies.results.trial_rows import curve_of
from tdmpc_ray.studies.tracking.callback import MLflowTracker
from tdmpc_ray.studies.tracking.client import connect
from tdmpc_ray.studies.tracking.kind import KIND_TAG, StudyKind
from tdmpc_ray.studies.tracking.trial_record import TrialRecord

ASHA = StudyKind.SEARCH | StudyKind.EARLY_STOPPED


def table(*rows: tuple[str, dict[int, float], str, str], kind: StudyKind = ASHA) -> StudyRuns:
    """A study of one task and size without MLflow: settings, curves, status and `stopped_early`."""
    trials, points = [], []
    for number, (setting, curve, status, stopped) in enumerate(rows):
        who = {
            "run_id": f"r{number}",
            "parent": "p",
            "task": "walker-walk",
            "model_size": "1",
            "seed": str(number),
            "setting": f"lr={setting}",
        }
        points += [
            {
                **who,
                "env_steps": step,
                "env_frames": 2 * step,
                "step": step,
                "value": value,
                "flops": 10.0 * step,
                "wall_s": 1.0 * step,
            }
            for step, value in curve.items()
        ]
        last, costly = max(curve), {"hours": 1.0, "steps_per_s": 1.0, "params": 1e6}
        flops = {"train_flops": 1e9, "act_flops": 1e9, "flops": 2e9, "sim_hours": 0.1, "energy_kwh": 0.0}
        ends = {"env_steps": last, "steps_taken": last, "final": curve[last], "best": max(curve.values())}
        trials.append(
            {
                **who,
                **costly,
                **flops,
                **ends,
                "name": setting,
                "status": status,
                "stopped_early": stopped,
                "param.update.lr": setting,
                "parts": 1,
            }
        )
    return StudyRuns(
        "exp", "s", ("p",), pd.DataFrame(trials), pd.DataFrame(points), {}, "eval/return", kind=kind
    )


def rising(end: float, steps: int = 10) -> dict[int, float]:
    return {1000 * n: end * n / steps for n in range(1, steps + 1)}


def test_trials_that_were_stopped_early_are_compared_at_a_common_step() -> None:
    # Stopped at 3,000 steps with 400; the others had 240 and 270 there, and 800 and 900 at 10,000.
    early = {1000: 150.0, 2000: 250.0, 3000: 400.0}
    runs = table(
        ("0.1", rising(800), "FINISHED", ""),
        ("0.2", rising(900), "FINISHED", ""),
        ("0.3", early, "FINISHED", "at 3,000 of 10,000 steps"),
        ("0.4", {1000: 5.0}, "FAILED", ""),
    )
    evidence = Evidence(runs)
    points = search_points(evidence).set_index("lr")["score"]
    assert points.to_dict() == pytest.approx({0.3: 0.4, 0.2: 0.27, 0.1: 0.24})
    said = "1 of 3 runs were stopped early: all are compared by their results at 3,000 agent steps"
    assert any(said in text for text in parallel_coordinates(evidence).text)
    # What is compared at its end has gone there.
    assert [setting for _, setting in evidence.complete] == ["lr=0.1", "lr=0.2"]
    assert "lr=0.2: mean score 0.9" in _best(evidence)
    words = (
        "Compared are the 2 runs that went to their end, not the 2 that were stopped early, failed or go on."
    )
    assert evidence.basis() == (words,)
    assert words in frontier(evidence).text
    shown = render_table(runs)
    assert list(shown.columns[2].cells) == ["1", "1", "1+", "1*"]
    assert "+ stopped early by the scheduler, at fewer steps" in str(shown.caption)
    facts = _facts(evidence, "")
    assert ("compared", words) in facts
    assert ("kind", "search, early-stopped") in facts


def test_a_figure_of_a_hundred_settings_shows_the_best() -> None:
    runs = table(*((f"{n / 1000}", rising(100 + n), "FINISHED", "") for n in range(100)))
    assert shown_groups(runs) == [("1", f"lr={n / 1000}") for n in range(92, 100)]
    figure = scaling_figure(runs)
    labels = [line.get_label() for line in figure.get_axes()[0].get_lines()]
    assert len([label for label in labels if not str(label).startswith("_")]) == 8
    assert "the 8 best of 100 lines" in figure.get_suptitle()


def test_where_none_went_to_its_end_all_are_compared_at_a_common_step() -> None:
    runs = table(("0.1", rising(800, 4), "RUNNING", ""), ("0.2", rising(300, 2), "KILLED", ""))
    evidence = Evidence(runs)
    assert evidence.common_step == 2000
    assert evidence.trials["score"].tolist() == [0.4, 0.3]
    words = "No run has gone to its end: all are compared by their results at 2,000 agent steps"
    assert evidence.left_out()[0].startswith(words)
    assert search_points(evidence)["score"].tolist() == [0.4, 0.3]


def test_runs_that_are_whole_are_compared_without_a_word() -> None:
    evidence = Evidence(table(("0.1", rising(800), "FINISHED", ""), ("0.2", rising(900), "FINISHED", "")))
    assert (evidence.basis(), evidence.left_out(), evidence.common_step) == ((), (), None)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "plain"),
        ({"space": {"planner.horizon": {"grid": [1, 3]}}}, "plain"),
        (
            {"space": {"update.lr": {"loguniform": [1e-4, 1e-3]}}, "num_samples": 4, "scheduler": "asha"},
            "search, early-stopped",
        ),
        (
            {"space": {"update.lr": {"loguniform": [1e-4, 1e-3]}}, "num_samples": 4, "scheduler": "pbt"},
            "search, population",
        ),
        ({"task": "walker-walk+walker-run"}, "task-set"),
    ],
)
def test_the_kind_of_a_study(keys: dict[str, Any], words: str) -> None:
    kind = make_study({"name": "k", "task": "walker-walk", "steps": 1_000_000, **keys}).kind
    assert str(kind) == words
    assert StudyKind.parse(words) == kind
    assert StudyKind.parse("") == StudyKind.parse("what a later version may say") == StudyKind.PLAIN


def test_a_population_is_one_group_that_spent_what_it_spent(
    store: str, tmp_path: Path, drive: Any, mlflow_read: SimpleNamespace
) -> None:
    kind = StudyKind.SEARCH | StudyKind.POPULATION
    tracker = MLflowTracker(uri=store, experiment="exp", study="pop", spool_dir=tmp_path / "s", kind=kind)
    tracker.setup()
    calls = drive(tracker)

    def result(trial: Any, steps: int, value: float, spent: float, total: float) -> None:
        report = {
            "eval/return": value,
            "time/env_steps": steps,
            "time/wall_s": total,
            "summary/params_total": 9,
        }
        report |= {"time/train_flops": 10.0 * total, "time/act_flops": 20.0 * total, "time/sim_s": total}
        names = {"wall_s": 1.0, "train_flops": 10.0, "act_flops": 20.0, "sim_s": 1.0, "env_steps": 0.1}
        own = {name: spent * rate for name, rate in names.items()}
        told = {"env_steps": steps, "report": report, "spent": own}
        tracker.on_trial_result(iteration=0, trials=[], trial=trial, result=told)

    members = [
        drive.trial(name, model_size="1", seed=0, task="walker-walk", **{"update.lr": lr})
        for name, lr in (("a", 0.1), ("b", 0.2))
    ]
    for member in members:
        calls.start(member)
    for steps in (1000, 2000):
        result(members[0], steps, steps / 10, spent=3600.0 * steps / 1000, total=3600.0 * steps / 1000)
    result(members[1], 1000, 500.0, spent=3600.0, total=3600.0)
    # The first goes on from the second's checkpoint: fewer steps, less on its clock, and another setting.
    members[0].config["update.lr"] = 0.25
    time.sleep(0.01)  # MLflow's clock has milliseconds
    calls.start(members[0])
    for steps in (1500, 2500):
        since = 3600.0 * (steps - 1000) / 1000
        result(members[0], steps, steps / 4, spent=since, total=3600.0 + since)
    for member in members:
        calls.complete(member)
    tracker.close("FINISHED")

    runs = with_costs(load_study_runs("exp", store, "pop"), store)
    assert runs.kind == kind
    assert connect(store).get_run(runs.parent_run_ids[0]).data.tags[KIND_TAG] == "search, population"
    assert runs.groups == [("1", "")]
    first = runs.trials.set_index("name").filter(like="lr=0.1", axis="index").iloc[0]
    curve = runs.curves[runs.curves["run_id"] == first["run_id"]]
    assert dict(zip(curve["env_steps"], curve["value"], strict=True)) == {1000: 100, 1500: 375, 2500: 625}
    assert (first["hours"], first["sim_hours"]) == (3.5, 3.5)  # 2 before and 1.5 after, not 1 + 1.5
    assert first["train_flops"] == 10 * 3.5 * 3600
    assert first["flops"] == 30 * 3.5 * 3600

    check_sections(Evidence(runs))


def test_what_a_stopped_process_did_after_its_last_result_counts() -> None:
    record = TrialRecord(params={}, started=0)
    first = {"env_steps": 1000.0, "wall_s": 10.0}
    record.spend(first, {f"time/{name}": value for name, value in first.items()}, is_own=True)
    for _ in range(2):  # stopped, saved at 1,016 steps and 11 s, and begun again
        record.spent_before, record.spent = record.all_spent(), {}
        donor = TrialRecord(record.params, 0, spent_before=dict(record.spent_before))
    for steps in (500.0, 1984.0):
        told = {"env_steps": steps, "wall_s": 20.0}, {"time/env_steps": 1016.0 + steps, "time/wall_s": 31.0}
        record.spend(*told, is_own=True)
        donor.spend(*told, is_own=False)
    assert record.all_spent() == {"env_steps": 3000.0, "wall_s": 31.0}
    assert donor.all_spent() == {"env_steps": 2984.0, "wall_s": 30.0}


def check_sections(evidence: Evidence) -> None:
    total = costs(evidence).table.iloc[-1]  # type: ignore[union-attr]
    assert (total["hours"], total["env_steps"]) == (4.5, 1620)
    for section in (importance_section(evidence), parallel_coordinates(evidence)):
        assert section.absent.startswith("a population changes its settings while it trains")
    assert frontier(evidence).absent == frontier_law(evidence) + "."  # type: ignore[operator]
    moved = movement(evidence).table
    assert moved is not None
    assert moved[["setting", "members", "median_at_end"]].to_numpy().tolist() == [["update.lr", 1, 0.25]]
    assert any("no independent runs" in text for text in aggregates(evidence).text)


def test_what_was_logged_later_counts() -> None:
    history = [
        Point(1, 500, 1.0),
        Point(2, 1000, 2.0),
        Point(3, 2000, 3.0),
        Point(4, 1000, 4.0),
        Point(5, 1500, 5.0),
    ]
    assert list(curve_of(history).items()) == [(500, 1.0), (1000, 4.0), (1500, 5.0)]
