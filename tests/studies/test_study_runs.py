"""Studies read back from a real MLflow store."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from rich.console import Console
from synthetic import EXPERIMENT as SYNTHETIC
from synthetic import log_study
from written_study import STEPS, run_study

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.results.analysis.results import summary_table
from tdmpc_ray.studies.results.compare import compare, render_table
from tdmpc_ray.studies.results.costs import with_costs
from tdmpc_ray.studies.results.figures import scaling_figure
from tdmpc_ray.studies.results.setting_names import settings, with_defaults
from tdmpc_ray.studies.results.study_runs import load_study_runs
from tdmpc_ray.studies.tracking.callback import MLflowTracker
from tdmpc_ray.studies.tracking.client import connect


def test_summary_of_a_study(drive: Any, store: str, tmp_path: Path) -> None:
    run_study(drive, store, tmp_path, "older", sizes=("1",))
    parent = run_study(drive, store, tmp_path, "newer")
    runs = load_study_runs("walkers", store)
    assert (runs.study, runs.parent_run_ids) == ("newer", (parent,))
    assert runs.sizes == ["tiny", "1", "19"]
    assert runs.frames_per_step("walker-walk") == 2
    assert len(runs.curves) == 3 * 3 * 3
    assert set(runs.trials["status"]) == {"FINISHED"}

    rows = {row["model_size"]: row for row in summary_table(runs).to_dict("records")}
    assert list(rows) == ["tiny", "1", "19", "random policy"]
    one = rows["1"]
    assert (one["params"], one["seeds"], one["env_steps"]) == (960_000, 3, 3000)
    assert one["final"] == pytest.approx(610.0)
    assert one["best"] == 625.0
    assert (one["low"], one["high"]) == pytest.approx((610 - 24.84, 610 + 24.84), abs=0.01)  # t(2) = 4.303
    assert one["hours"] == pytest.approx(3 * 300 / 3600)
    assert one["steps_per_s"] == pytest.approx(10.0)
    assert rows["random policy"]["final"] == 39.0
    finals = {row["params"]: row["final"] for row in rows.values() if row["params"] > 0}
    assert finals == {80_000: 310.0, 960_000: 610.0, 19_300_000: 910.0}
    assert load_study_runs("walkers", store, "older").sizes == ["1"]
    assert load_study_runs("walkers", store, parent).study == "newer"


def test_runs_of_two_algorithms_have_their_own_defaults() -> None:
    rows = {"model_size": ["1", "1"], "param.preset": ["light", "light"]}
    rows |= {"param.algorithm": [None, "tdmpc"], "param.planner.num_samples": ["64", None]}
    full = with_defaults(pd.DataFrame(rows))
    assert full["param.algorithm"].tolist() == ["tdmpc2", "tdmpc"]
    assert full["param.planner.num_samples"].tolist() == ["64", "136"]


def test_one_seed_says_so(drive: Any, store: str, tmp_path: Path) -> None:
    run_study(drive, store, tmp_path, "single", seeds=1)
    runs = load_study_runs("walkers", store)
    assert math.isnan(summary_table(runs)["low"].iloc[0])
    console = Console(file=io.StringIO(), width=140)
    console.print(render_table(runs))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("n=1") == 3
    assert "random policy" in text
    assert scaling_figure(runs).get_axes()[0].get_title(loc="left") == "walker-walk: learning curves"


def test_a_step_that_ran_twice_counts_once(drive: Any, store: str, tmp_path: Path) -> None:
    run_study(drive, store, tmp_path, "twice", sizes=("1",), seeds=1)
    client = connect(store)
    run_id = load_study_runs("walkers", store).trials["run_id"].iloc[0]
    client.log_metric(run_id, "eval/return", 1.5, step=3000, timestamp=4_000_000_000_000)
    runs = load_study_runs("walkers", store)
    assert runs.trials["final"].tolist() == [1.5]
    assert runs.curves["env_steps"].tolist() == list(STEPS)


def refusal(*args: Any) -> str:
    with pytest.raises(UserError) as caught:
        compare(*args, console=Console(file=io.StringIO()))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_cannot_be_compared(drive: Any, store: str, tmp_path: Path) -> None:
    run_study(drive, store, tmp_path, "one", sizes=("1",), seeds=1, evaluate=False)
    connect(store).create_experiment("empty")
    assert "did you mean 'walkers'?" in refusal("walker", store)
    assert "did you mean 'one'?" in refusal("walkers", store, "onne")
    assert "holds no study" in refusal("empty", store)
    assert "no 'eval/return' in 1 trials" in refusal("walkers", store)
    assert "connection refused" in refusal("walkers", "http://127.0.0.1:9")
    missing = tmp_path / "absent.db"
    assert "run a study first" in refusal("walkers", f"sqlite:///{missing}")
    assert not missing.exists()


def test_settings_are_told_apart_and_unfinished_trials_do_not_count(
    drive: Any, store: str, tmp_path: Path
) -> None:
    tracker = MLflowTracker(uri=store, experiment="walkers", study="h", spool_dir=tmp_path / "h")
    tracker.setup()
    calls = drive(tracker)
    for horizon in (1, 3, 10):
        for seed in range(3):
            settings = {"planner.horizon": horizon, "update.lr": 1e-3}
            trial = drive.trial(f"{horizon}-{seed}", model_size="1", seed=seed, task="t", **settings)
            calls.start(trial)
            calls.result(trial, 1000, eval__return=100.0 * horizon + seed, summary__params_total=1e6)
            if (horizon, seed) == (3, 2):
                calls.error(trial)
            elif horizon != 10:
                calls.complete(trial)
    assert tracker.close("KILLED") is None
    runs = load_study_runs("walkers", store)
    assert runs.settings == ["horizon=1", "horizon=3", "horizon=10"]
    table = summary_table(runs)
    assert table["setting"].tolist() == runs.settings
    assert table["final"].tolist() == [101.0, 300.5, 1001.0]
    assert table["seeds"].tolist() == [3, 2, 3]
    assert table["unfinished"].tolist() == [0, 1, 3]
    console = Console(file=io.StringIO(), width=80)
    console.print(render_table(runs))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "│" not in text
    assert re.search(r"1 +horizon=10 +3\* +1001.0 +998.5 to 1003.5 +1,000", text)
    assert "* some trials have not finished" in text
    labels = [line.get_label() for line in scaling_figure(runs).get_axes()[0].get_lines()]
    assert [label for label in labels if not label.startswith("_")] == runs.settings


def test_settings_are_told_apart_by_as_many_digits_as_it_takes() -> None:
    trials = pd.DataFrame({"param.data.seed_steps": ["10001", "10002"]})
    assert settings(trials).tolist() == ["seed_steps=10001", "seed_steps=10002"]
    trials = pd.DataFrame({"param.preset": ["light", "paper", "paper"], "param.x": ["None", "3", "0.25"]})
    assert settings(trials).tolist() == ["preset=light, x=None", "preset=paper, x=3", "preset=paper, x=0.25"]


def test_a_study_that_is_named_twice_counts_once(drive: Any, store: str, tmp_path: Path) -> None:
    run_id = run_study(drive, store, tmp_path, "once", sizes=("1",))
    once, twice = (load_study_runs("walkers", store, names) for names in ("once", ["once", run_id, "once"]))
    assert len(twice.trials) == len(once.trials) == 3
    assert len(twice.curves) == len(once.curves)


def test_studies_side_by_side_are_told_apart_by_their_settings(
    drive: Any, store: str, tmp_path: Path
) -> None:
    run_study(drive, store, tmp_path, "plain", sizes=("1",), seeds=2)
    run_study(drive, store, tmp_path, "other task", sizes=("1",), seeds=1, tasks=("cup-catch",))
    tracker = MLflowTracker(uri=store, experiment="walkers", study="ablation", spool_dir=tmp_path / "spool")
    tracker.setup()
    calls = drive(tracker)
    trial = drive.trial("a", **{"model_size": "1", "seed": 0, "task": "walker-walk", "model.simnorm_dim": 0})
    calls.start(trial)
    calls.result(trial, 3000, time__env_steps=3000, time__env_frames=6000, eval__return=100.0)
    calls.complete(trial)
    assert tracker.close("FINISHED") is None
    runs = load_study_runs("walkers", store, ["plain", "ablation", "other task"])
    assert runs.settings == ["", "simnorm_dim=0"]
    assert [len(runs.of("walker-walk", "1", setting)) for setting in runs.settings] == [2, 1]
    assert runs.tasks == ["cup-catch", "walker-walk"]
    assert runs.random_returns == {"walker-walk": 39.0, "cup-catch": 39.0}
    console = Console(file=io.StringIO(), width=160)
    path = compare("walkers", store, ["plain", "ablation"], tmp_path, console=console)
    assert path.name == "plain__ablation_scaling.png"
    with pytest.raises(
        UserError, match="no study 'ablatoin' in experiment 'walkers': did you mean 'ablation'"
    ):
        load_study_runs("walkers", store, ["plain", "ablatoin"])


def test_unlike_runs_are_compared_in_a_narrow_terminal(drive: Any, store: str, tmp_path: Path) -> None:
    own = {"cpus_per_env_runner": 0.25, "num_env_runners": 2}
    for number, algorithm in enumerate(("tdmpc", "tdmpc2")):
        tracker = MLflowTracker(
            uri=store, experiment="walkers", study=algorithm, spool_dir=tmp_path / algorithm
        )
        tracker.setup()
        calls = drive(tracker)
        params = {
            "algorithm": algorithm,
            "planner.num_samples": 64 + number,
            "update.batch_size": 32 + number,
        }
        params |= {f"resources.{name}": value * (1 + number) for name, value in own.items()}
        trial = drive.trial(algorithm, model_size="1", seed=number, task="walker-walk", **params)
        calls.start(trial)
        calls.result(trial, 3000, time__env_steps=3000, eval__return=876.5, summary__params_total=1e6)
        calls.complete(trial)
        assert tracker.close("FINISHED") is None
    runs = load_study_runs("walkers", store, ["tdmpc", "tdmpc2"])
    assert runs.settings[1] == "algorithm=tdmpc, num_samples=64, batch_size=32, num_env_runners=2"
    console = Console(file=io.StringIO(), width=80)
    console.print(render_table(runs))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert len(re.findall(r"1 +876.5 +n=1 +3,000 +\d\.\d\d", text)) == 2
    assert "…" not in text
    figure = scaling_figure(runs)
    figure.draw_without_rendering()  # warns where there is no room for panels
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.texts} >= {*map(runs.label, runs.groups)}


def test_a_model_of_two_tasks_beside_their_specialists(store: str, tmp_path: Path, drive: Any) -> None:
    tracker = MLflowTracker(uri=store, experiment="walkers", study="sets", spool_dir=tmp_path / "spool")
    tracker.setup()
    calls = drive(tracker)
    both = "walker-walk+cup-catch"
    for task, steps in ((both, 2000), ("walker-walk", 1000), ("cup-catch", 1000)):
        trial = drive.trial(task, model_size="1", seed=0, task=task)
        calls.start(trial)
        report = {"time__env_steps": steps, "time__env_frames": 2 * steps, "time__wall_s": steps * 3.6}
        report |= {"time__train_flops": 10.0 * steps, "eval__return": 500.0}
        if task == both:
            report |= {"eval__walker-walk__return": 300.0, "eval__cup-catch__return": 700.0}
        calls.result(trial, steps, **report)
        calls.complete(trial)
    names = [f"baseline/random_return/{task}" for task in ("walker-walk", "cup-catch")]
    tracker.study_run.log_metrics({names[0]: 10.0, names[1]: 20.0, f"baseline/random_return/{both}": 15.0})
    assert tracker.close("FINISHED") is None
    runs = load_study_runs("walkers", store, "sets")
    assert runs.tasks == ["cup-catch", "walker-walk"]
    assert runs.settings == ["tasks=1", "tasks=2"]
    assert runs.random_returns == {"walker-walk": 10.0, "cup-catch": 20.0}
    finals = {(row.task, row.setting): row.final for row in runs.trials.itertuples()}
    assert finals == {
        ("walker-walk", "tasks=2"): 300.0,
        ("cup-catch", "tasks=2"): 700.0,
        ("walker-walk", "tasks=1"): 500.0,
        ("cup-catch", "tasks=1"): 500.0,
    }
    # Matched data: every task had as many steps; what the set cost is shared by its tasks.
    assert set(runs.trials["env_steps"]) == set(runs.curves["env_steps"]) == {1000}
    assert runs.trials["hours"].sum() == pytest.approx(4.0)
    costly = with_costs(runs, store)
    assert costly.curves["train_flops"].tolist() == [10_000.0] * 4
    table = summary_table(runs)
    assert len(table[table["model_size"] == "1"]) == 4


def test_compare_reads_only_and_in_requests_that_do_not_grow_with_trials(
    store: str, tmp_path: Path, drive: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counting(name: str) -> Any:
        real = getattr(SqlAlchemyStore, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            asked.append(name)
            return real(*args, **kwargs)

        return counted

    for seeds in (1, 5):
        log_study(drive, store, tmp_path, f"of{seeds}", sizes=("1",), seeds=seeds, tasks=("walker-walk",))
    names = [
        name
        for name in vars(SqlAlchemyStore)
        if name.startswith(("get_", "search_", "log_", "set_", "create_"))
    ]
    for name in names:
        monkeypatch.setattr(SqlAlchemyStore, name, counting(name))
    counts = []
    for seeds in (1, 5):
        asked.clear()
        printed = io.StringIO()
        compare(SYNTHETIC, store, f"of{seeds}", tmp_path, console=Console(file=printed, width=200))
        assert not [name for name in asked if name.startswith(("log_", "set_", "create_"))]
        assert "charts: MLflow has no charts of these studies together yet" in printed.getvalue()
        with_costs(load_study_runs(SYNTHETIC, store, f"of{seeds}"), store)
        counts.append(Counter(asked))
    assert counts[0] == counts[1]
