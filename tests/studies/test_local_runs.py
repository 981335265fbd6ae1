"""What a study's folder says without MLflow, and commands that take such folders."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle

from tdmpc_ray import cli
from tdmpc_ray.studies.file.folder import begin, only_process
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.file.metrics_file import METRICS_FILE, MetricsFile
from tdmpc_ray.studies.file.names import run_name
from tdmpc_ray.studies.file.record import local_runs, read_record
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.run.recording import RecordResults


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_default_names_say_what_was_set() -> None:
    defaults = Study.defaults()
    plain: dict[str, Any] = {
        "task": "walker-walk",
        "obs": "state",
        "preset": "paper",
        "model_sizes": ["5"],
        "seeds": [0],
        "steps": 10,
        "set": {},
        "start_from": None,
        "evaluation": {"every": 7},
        "resources": {"num_env_runners": 0, "gpus_per_learner": 0.0},
    }
    assert run_name(plain, defaults) == "walker-walk-size5-seed0"
    changes: list[dict[str, Any]] = [
        {"task": "gym:Pendulum-v1"},
        {"obs": "rgb"},
        {"preset": "light"},
        {"seeds": [1]},
        {"set": {"update.lr": 1e-3}},
        {"set": {"update.lr": "1e-3", "planner.dtype": "bf16", "update.dtype": "bf16"}},
        {"set": {"data.demonstrations": "/a/long/way/to/walks/"}},
        {"start_from": "results/first"},
        {"resources": {"num_env_runners": 4, "gpus_per_learner": 0.5}},
    ]
    names = [run_name({**plain, **change}, defaults) for change in changes]
    assert names == [
        "gym-Pendulum-v1-size5-seed0",
        "walker-walk-size5-seed0-rgb",
        "walker-walk-size5-seed0-light",
        "walker-walk-size5-seed1",
        "walker-walk-size5-seed0-lr-0.001",
        "walker-walk-size5-seed0-lr-1e-3-planner.dtype-bf16-update.dtype-bf16",
        "walker-walk-size5-seed0-demonstrations-walks",
        "walker-walk-size5-seed0-from-first",
        "walker-walk-size5-seed0-env_runners-4-gpus_per_learner-0.5",
    ]


def test_train_takes_a_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from tdmpc_ray.studies.run import runner

    started: list[tuple[str, Path]] = []

    def fake_run(study: Study, out: Path, **_: Any) -> SimpleNamespace:
        started.append((study.name, out))
        return SimpleNamespace(exit_status=0)

    monkeypatch.setattr(runner, "run_study", fake_run)
    train = ["train", "--task", "walker-walk", "--steps", "10"]
    assert cli.main([*train, "--name", "high-rate"]) == 0
    assert cli.main([*train, "--preset", "light", "--set", "update.lr=1e-3"]) == 0
    assert [name for name, _ in started] == ["high-rate", "walker-walk-size5-seed0-light-lr-1e-3"]
    assert all(out.name.startswith(f"{name}-20") for name, out in started)
    assert cli.main([*train, "--name", "a b"]) == 2
    assert capsys.readouterr().err.startswith("error: --name: ")


def test_metrics_gain_columns_and_lose_what_is_gone_over_again(tmp_path: Path) -> None:
    path, first = tmp_path / METRICS_FILE, ("trial", "env_steps")
    metrics = MetricsFile(path, first)
    assert rows_of(path) == []
    for trial, steps in (("a", 10), ("b", 10), ("a", 20), ("a", 30)):
        metrics.add({"trial": trial, "env_steps": steps, "loss": steps / 10})
    metrics.add({"trial": "b", "env_steps": 20, "loss": 2.0, "eval/return": 5.5})
    with path.open("a") as file:
        file.write("a,40,9")  # its process was killed here
    again = MetricsFile(path, first)
    again.add({"trial": "a", "env_steps": 30, "loss": 0.5})  # as in the same result: updates that catch up
    again.add({"trial": "a", "env_steps": 20, "loss": 7.0})
    again.add({"trial": "a", "env_steps": 30, "eval/return": 6.0})
    assert [tuple(row.values()) for row in rows_of(path)] == [
        ("a", "10", "1.0", ""),
        ("b", "10", "1.0", ""),
        ("b", "20", "2.0", "5.5"),
        ("a", "20", "7.0", ""),
        ("a", "30", "", "6.0"),
    ]
    assert [*rows_of(path)[0]] == ["trial", "env_steps", "loss", "eval/return"]
    assert [path.name for path in tmp_path.iterdir()] == [METRICS_FILE]


def recorded(out: Path, say: Any = print, **changes: Any) -> RecordResults:
    """A callback as the runner makes it, of a study in a folder."""
    values = {"name": out.name, "task": "walker-walk", "seeds": [0, 1], "steps": 2000, **changes}
    study = make_study(values)
    begin(study, out, None)
    return RecordResults(study, out, dict, lambda config: {"seed": config["seed"]}, say)


def trial(drive: Any, seed: int) -> Any:
    return drive.trial(f"t{seed}", model_size="5", seed=seed, task="walker-walk", total_steps=2000)


def ending(out: Path, **counts: Any) -> Any:
    return SimpleNamespace(out=out, **{"finished": 0, "failed": (), "unfinished": 0, **counts})


def test_a_folder_says_how_its_study_stands(drive: Any, tmp_path: Path) -> None:
    out = tmp_path / "one"
    callback = recorded(out)
    callback.setup()
    calls, first, second = drive(callback), trial(drive, 0), trial(drive, 1)
    calls.start(first)
    calls.result(first, 1000, seconds=36.0, train__return=3.0)
    calls.result(first, 2000, seconds=72.0, eval__return=250.0, eval__return_std=1.0)
    calls.complete(first)
    calls.start(second)
    calls.result(second, 1000, eval__return=100.0)
    record = read_record(out)
    assert record is not None
    assert (record.status, record.steps, record.expected_trials) == ("running", 2000, 2)
    done, going = record.trials
    assert (done.trial, done.label, done.status) == ("size5-seed0-t0", "seed=0", "finished")
    assert (done.evaluated_at, done.evaluation["eval/return"], done.hours) == (2000, 250.0, 0.02)
    assert (going.status, going.env_steps, going.total_steps) == ("running", 1000, 2000)
    rows = rows_of(out / METRICS_FILE)
    assert [(row["label"], row["env_steps"], row["eval/return"]) for row in rows] == [
        ("seed=0", "1000", ""),
        ("seed=0", "2000", "250.0"),
        ("seed=1", "1000", "100.0"),
    ]
    assert [row["evaluated_at"] for row in rows] == ["", "2000", "1000"]

    [run] = local_runs([tmp_path])
    assert run.status == "killed"  # nobody holds its folder
    with only_process(out):
        assert local_runs([out])[0].status == "running"
    callback.close(ending(out, finished=1, unfinished=1))
    [run] = local_runs([tmp_path, out])
    assert (run.status, run.env_steps, run.last_return, run.trials) == ("stopped", 2000, 250.0, 2)
    record = read_record(out)
    assert record is not None
    assert [t.status for t in record.trials] == ["finished", "stopped"]

    again = recorded(out)
    assert cloudpickle.loads(cloudpickle.dumps(again))._say is None  # what prints cannot be pickled
    again.setup()
    calls = drive(again)
    calls.start(second)
    calls.result(second, 2000, eval__return=300.0)
    calls.error(second)
    again.close(ending(out, finished=1, failed=("seed=1",)))
    [run] = local_runs([tmp_path])
    assert (run.status, run.last_return, run.started) == ("failed", 300.0, record.started)
    assert len(rows_of(out / METRICS_FILE)) == 4


def test_a_full_disk_costs_the_files_and_not_the_study(drive: Any, tmp_path: Path) -> None:
    said: list[str] = []
    callback = recorded(tmp_path / "one", said.append)
    callback.setup()
    shutil.rmtree(tmp_path / "one")
    calls, first = drive(callback), trial(drive, 0)
    calls.start(first)
    calls.result(first, 1000, eval__return=1.0)
    [line] = said
    assert "cannot be written" in line
    assert "MLflow gets it all the same" in line


def test_runs_are_listed_newest_first(drive: Any, tmp_path: Path) -> None:
    for name in ("older", "newer"):
        callback = recorded(tmp_path / "results" / name, tasks=["walker-walk", "cup-catch"], task=None)
        callback.setup()
        calls, one = drive(callback), trial(drive, 0)
        calls.start(one)
        calls.result(one, 2000, eval__return=12.345)
        callback.close(ending(tmp_path, finished=2))
    begin(make_study({"name": "old", "task": "cup-catch", "steps": 5}), tmp_path / "results/no-record", None)
    os.utime(tmp_path / "results/no-record/study.yaml", (1.0, 1.0))
    (tmp_path / "results/broken").mkdir()
    (tmp_path / "results/broken/study.yaml").write_text("{")
    os.utime(tmp_path / "results/broken/study.yaml", (0.0, 0.0))

    def shell(command: str) -> list[str]:
        full = f"{sys.executable} -m tdmpc_ray.cli {command}"
        done = subprocess.run(full, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    lines = shell("runs")
    assert lines[0].split() == ["name", "task", "steps", "return", "status", "folder"]
    newer = "newer walker-walk+1 2,000/2,000 12.3 finished results/newer"
    assert lines[1].split() == newer.split()
    assert [line.split()[0] for line in lines[1:]] == ["newer", "older", "old", "broken"]
    assert lines[3].split() == ["old", "cup-catch", "-", "-", "unknown", "results/no-record"]
    if shutil.which("jq"):
        chosen = "'.[] | select(.last_return > 10) | .folder'"
        assert shell(f"runs results --json | jq -r {chosen}") == ["results/newer", "results/older"]
    else:
        pytest.skip("jq is not installed")


def test_runs_of_a_folder_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", "absent"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no folder absent")
