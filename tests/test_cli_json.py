"""What the commands print with `--json`, each against its form, which docs/json.md shows."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from tdmpc_ray import cli
from tdmpc_ray.cli import cluster, forms
from tdmpc_ray.studies.run.jobs import Job

DOCS = Path(__file__).parents[1] / "docs"


def printed(capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    assert cli.main([*args, "--json"]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "NaN" not in out
    assert "Infinity" not in out
    return json.loads(out)


def check(form: type[BaseModel], value: dict[str, Any]) -> None:
    """Every key of the form is there, and no other."""
    assert set(value) == set(form.model_fields)
    form.model_validate(value)


def test_the_page_shows_the_forms() -> None:
    spec = importlib.util.spec_from_file_location("json_forms", DOCS / "json_forms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.FILE.read_text() == module.page(), "write it with: python docs/json_forms.py"


def test_jobs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [Job("a-1", "a", "SUCCEEDED", "done", 1.0, 2.0), Job("b-2", "b", "PENDING", "", None, None)]
    fake = SimpleNamespace(all=lambda: jobs, get=lambda job_id: {job.id: job for job in jobs}[job_id])
    monkeypatch.setattr(cluster, "_jobs", lambda address: fake)
    listed = printed(capsys, "list")
    assert [job["id"] for job in listed] == ["a-1", "b-2"]
    for job in listed:
        check(forms.JobForm, job)
    one = printed(capsys, "status", "b-2")
    assert one == listed[1]
    assert one["started"] is None


def test_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    found = {task["name"]: task for task in printed(capsys, "envs", "walker-walk*")}
    walk = found["walker-walk"]
    check(forms.TaskForm, walk)
    assert (walk["obs_size"], walk["action_size"], walk["episode_length"]) == (24, 6, 500)
    assert (walk["installed"], walk["obstacle"]) == (True, None)
    [cart] = printed(capsys, "envs", "gym:CartPole-v1")
    assert cart["installed"] is False
    assert "Discrete" in cart["obstacle"]


SPEEDS = ["--env-ms", "2", "--core-gflops", "50", "--gpu-tflops", "20", "--gpu-floor-ms", "4"]


def test_plans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("name: s\ntask: gym:Pendulum-v1\nmodel_sizes: [1, 5]\nsteps: 50000\n")
    plan = printed(capsys, "plan", str(file), "--gpus", "1", "--cpus", "16", *SPEEDS)
    check(forms.PlanForm, plan)
    assert (plan["study"], plan["trials"], plan["steps"]) == ("s", 2, 50_000)
    assert [point["label"] for point in plan["as_written"]["points"]] == ["size=1", "size=5"]
    assert plan["better"]["hours"] < plan["as_written"]["hours"]
    assert [note for note in plan["notes"] if note.startswith("the study asks for no GPU")]
    file.write_text("name: s\ntask: gym:Pendulum-v1\nsteps: 10\nresources: {gpus_per_learner: 1}\n")
    plan = printed(capsys, "plan", str(file), "--gpus", "0", "--cpus", "16", *SPEEDS)
    assert (plan["as_written"]["at_once"], plan["as_written"]["hours"]) == (0, None)


def test_a_dry_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tdmpc_ray.studies.plan import speeds
    from tdmpc_ray.studies.run import cluster as cluster_of_study
    from tdmpc_ray.studies.run import dry_run

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(
        dry_run,
        "measure_speeds",
        lambda study, **_: speeds.measure_speeds(
            study, env_ms=2, core_gflops=50, gpu_tflops=20, gpu_floor_ms=4
        ),
    )
    file = tmp_path / "study.yaml"
    file.write_text("name: s\ntask: gym:Pendulum-v1\nmodel_sizes: [1]\nsteps: 300\n")
    plan = printed(capsys, "tune", str(file), "--dry-run", "--seed", "3", "--seed", "4")
    check(forms.PlanForm, plan)
    assert plan["labels"] == ["size=1 seed=3", "size=1 seed=4"]
    assert plan["request"]["CPU"] == 1
    assert plan["obstacle"] is None
    assert [note for note in plan["notes"] if note.startswith("nothing will be learned")]
    assert plan["speeds"].startswith("an environment step takes 2.00 ms, a core does 50 GFLOP/s")
    monkeypatch.setattr(cluster_of_study, "_cores", lambda: 4)
    here = printed(capsys, "tune", str(file), "--dry-run")
    there = printed(capsys, "plan", str(file), "--gpus", "0", "--cpus", "4", *SPEEDS)
    assert there == here | {"where": "a cluster of 4 CPUs and 0 GPUs"}, "one output"
    file.write_text("name: s\ntask: gym:Pendulum-v1\nsteps: 50000\nresources: {num_env_runners: 3}\n")
    updates = []
    for cores in (4, 2):
        monkeypatch.setattr(cluster_of_study, "_cores", lambda cores=cores: cores)
        updates.append(
            printed(capsys, "tune", str(file), "--dry-run")["as_written"]["points"][0]["update_ms"]
        )
    assert updates[1] == pytest.approx(2 * updates[0]), "four processes on two cores"
    assert cli.main(["tune", str(file), "--json"]) == 2
    assert "error: --json goes with --dry-run" in capsys.readouterr().err


def test_options_stand_in_for_what_a_study_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tdmpc_ray.studies.run import runner

    started: list[Any] = []
    resumed: list[Any] = []

    def run_study(study: Any, out: Path, **_: Any) -> SimpleNamespace:
        started.append((study, out))
        return SimpleNamespace(exit_status=0)

    def resume_study(folder: Path, *, changes: dict[str, Any], **_: Any) -> SimpleNamespace:
        resumed.append(changes)
        return SimpleNamespace(exit_status=0)

    monkeypatch.setattr(runner, "run_study", run_study)
    monkeypatch.setattr(runner, "resume_study", resume_study)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "study.yaml"
    file.write_text(
        "name: s\ntask: walker-walk\nsteps: 5\nseeds: [0, 1]\nset: {update.lr: 1e-3, planner.horizon: 5}\n"
        "tracking: {experiment: lab}\n"
    )
    options = ["--set", "update.lr=1e-4", "--seed", "7", "--name", "t", "--mlflow-uri", "http://m:5000"]
    assert cli.main(["tune", str(file), *options]) == 0
    [(study, out)] = started
    assert (study.name, study.seeds) == ("t", [7])
    assert out.name.startswith("t-20")
    assert study.settings() == {"update.lr": 1e-4, "planner.horizon": 5}
    assert (study.tracking.uri, study.tracking.experiment) == ("http://m:5000", "lab")
    assert cli.main(["tune", str(file), "--set", "update.lrr=1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file}, with the options: ")
    assert "did you mean 'update.lr'?" in error

    assert cli.main(["resume", "out", "--mlflow-uri", "sqlite:///other.db"]) == 0
    assert resumed == [{"tracking": {"uri": f"sqlite:///{tmp_path}/other.db"}}]


def test_the_shell_completes_commands_options_and_values(tmp_path: Path) -> None:
    def completed(words: str, at: int) -> list[str]:
        asked = {"_TDMPC_RAY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(at)}
        done = subprocess.run(
            [Path(sys.executable).with_name("tdmpc-ray")],
            env={**os.environ, **asked},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    assert completed("tdmpc-ray re", 1) == ["resume", "report", "register"]
    assert "--model-size" in completed("tdmpc-ray train --mo", 2)
    values = {"--task walker-w": "walker-walk", "--model-size 1": "19", "--preset l": "light"}
    values |= {"--algorithm tdm": "tdmpc2", "--set planner.mi": "planner.min_std="}
    for words, value in values.items():
        assert value in completed(f"tdmpc-ray train {words}", 3), words
