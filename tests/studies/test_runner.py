"""Studies of a counting trainable on a real Ray with a real MLflow: end, failure, Ctrl-C, SIGTERM, resume."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import runner_stub
import yaml
from driver import Driver
from ray import cloudpickle
from rich.console import Console
from runner_stub import Stub

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.file.record import local_runs, read_record
from tdmpc_ray.studies.plan.room import Capacity
from tdmpc_ray.studies.run import cluster
from tdmpc_ray.studies.run.baseline import random_baselines
from tdmpc_ray.studies.run.cluster import ray_session
from tdmpc_ray.studies.run.runner import resume_study, run_study
from tdmpc_ray.studies.tracking.client import connect
from tdmpc_ray.studies.tracking.study_run import EVALUATION_EVERY
from tdmpc_ray.studies.words import mlflow_command, program

# Ray's workers cannot import test modules.
cloudpickle.register_pickle_by_value(runner_stub)


def check_what_was_printed(text: str) -> None:
    assert "note: nothing will be learned" not in text
    assert (
        "note: gym:Pendulum-v1 may terminate: the model learns to foresee it; where it never does, set "
        "model.episodic to false" in text
    )
    assert "failed: size=tiny seed=1: ValueError: as the test wants (log: out/tune/sizetiny-seed1-" in text
    again = "seed=1: failed, and starts again from its beginning: ValueError: as the test wants"
    assert text.count(again) == 1
    assert f"continue with: {program('tdmpc-ray')} resume out" in text
    assert f"\ncharts: {mlflow_command('sqlite:///mlflow.db')}\nthen open: http://" in text


@pytest.mark.usefixtures("local_ray")
def test_a_study_with_a_failing_trial_and_its_continuation(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stub, "fails", tmp_path / "fails")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fails").touch()
    (tmp_path / "toy.yaml").write_text("# the user's own words\n")
    printed = io.StringIO()
    console = Console(file=printed, width=120)
    study = make_study(runner_stub.values(store, max_failures=1))
    out = tmp_path / "out"
    result = run_study(study, out, study_file=tmp_path / "toy.yaml", trainable=Stub, console=console)

    assert (result.finished, result.unfinished, result.signum, result.exit_status) == (1, 0, None, 1)
    [failed] = result.failed
    assert (failed.name, failed.reason) == ("size=tiny seed=1", "ValueError: as the test wants")
    assert failed.log is not None
    assert "runner_stub.py" in failed.log.read_text()
    check_what_was_printed(printed.getvalue())
    runs = mlflow_read.runs(store, "exp")
    parent, good, bad = (runs[n] for n in ("toy", *(f"size=tiny seed={s}" for s in (0, 1))))
    assert [run.info.status for run in (parent, good, bad)] == ["FAILED", "FINISHED", "FAILED"]
    assert good.data.params["task"] == "gym:Pendulum-v1"
    assert mlflow_read.points(store, good, "train/return") == [(n, n) for n in range(100, 2001, 100)]
    assert good.data.metrics["omp_threads"] == 1.0
    # One restart, from the beginning, because it failed before its first checkpoint.
    assert [step for step, _ in mlflow_read.points(store, bad, "train/return")] == [100, 200]
    assert -2000 < parent.data.metrics["baseline/random_return"] < -500
    listed = {item.path for item in connect(store).list_artifacts(parent.info.run_id)}
    assert listed == {"study.yaml", "toy.yaml", "scaling.png"}
    assert (out / "scaling.png").read_bytes().startswith(b"\x89PNG")
    [newest] = (path for name, path in result.checkpoints.items() if name.startswith("sizetiny-seed0"))
    kept = sorted(path.name for path in newest.parent.glob("checkpoint_*"))
    assert kept == ["checkpoint_000000", "checkpoint_000001"]

    record = read_record(out)
    assert record is not None
    assert (record.status, {t.label: t.status for t in record.trials}) == (
        "failed",
        {"size=tiny seed=0": "finished", "size=tiny seed=1": "failed"},
    )
    (tmp_path / "fails").unlink()
    whole = resume_study(out, trainable=Stub, console=console)
    assert (whole.finished, whole.failed, whole.exit_status) == (2, (), 0)
    after = mlflow_read.runs(store, "exp")
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    assert {name: run.info.run_id for name, run in after.items()} == {
        name: run.info.run_id for name, run in runs.items()
    }
    assert after[good.info.run_name].data.metrics["starts"] == 1.0
    assert [run.status for run in local_runs([out])] == ["finished"]
    for seed in ("0", "1"):
        rows = [row for row in csv.DictReader((out / "metrics.csv").open()) if row["seed"] == seed]
        assert [(row["env_steps"], row["train/return"]) for row in rows] == [
            (f"{n}", f"{n}.0") for n in range(100, 2001, 100)
        ]
    assert "nothing was left to do" not in printed.getvalue()
    assert resume_study(out, trainable=Stub, console=console).exit_status == 0
    assert "note: nothing was left to do; a new run with --start-from" in printed.getvalue()
    assert (2000, 2000.0) in mlflow_read.points(store, after[bad.info.run_name], "train/return")


@pytest.mark.usefixtures("local_ray")
def test_a_trial_that_cannot_be_set_up_has_failed_for_mlflow_too(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace
) -> None:
    printed = io.StringIO()
    study = make_study(runner_stub.values(store, seeds=[0]))
    result = run_study(
        study, tmp_path / "out", trainable=runner_stub.Unready, console=Console(file=printed, width=200)
    )
    assert (len(result.failed), result.exit_status) == (1, 1)
    runs = mlflow_read.runs(store, "exp")
    assert {name: run.info.status for name, run in runs.items()} == {"toy": "FAILED", run_name(0): "FAILED"}
    assert runs[run_name(0)].data.tags["failure"] == "no room for it"
    assert runs["toy"].data.tags[EVALUATION_EVERY] == str(study.evaluation.every)
    assert "in 1 trials, of which 1 failed before the first evaluation: no room for it" in printed.getvalue()
    assert "wait for one" not in printed.getvalue()


def checkpointed(out: Path) -> dict[int, int]:
    """Seed to the agent steps of its newest checkpoint."""
    found: dict[int, int] = {}
    for file in sorted(out.glob("tune/*/checkpoint_*/stub.json")):
        seed = int(file.parents[1].name.split("-seed")[1].split("-")[0])
        with contextlib.suppress(FileNotFoundError):  # an older one goes when a newer one is complete
            found[seed] = yaml.safe_load(file.read_text())[0]
    return found


def run_name(seed: int) -> str:
    return f"size=tiny seed={seed}"


def steps_of(mlflow_read: SimpleNamespace, store: str, run: Any) -> list[int]:
    return [step for step, _ in mlflow_read.points(store, run, "train/return")]


@pytest.mark.timeout(600)  # three commands one after the other, each with a Ray of its own
@pytest.mark.usefixtures("local_ray")
def test_stop_twice_and_continue(store: str, tmp_path: Path, mlflow_read: SimpleNamespace) -> None:
    out = tmp_path / "out"
    (tmp_path / "slow").touch()
    driver = Driver(tmp_path, runner_stub.__file__, "run", "out", store)
    driver.wait_for(lambda: set(checkpointed(out)) == {0, 1})
    [gcs] = driver.processes("gcs_server")
    variables = Path(f"/proc/{gcs}/environ").read_bytes().split(b"\0")
    assert b"RAY_AUTH_MODE=token" in variables, "its ports are open to the network"
    assert any(variable.startswith(b"RAY_AUTH_TOKEN=") for variable in variables)
    os.killpg(driver.process.pid, signal.SIGINT)  # a terminal sends it to every process of the command
    assert driver.end() == 130
    assert driver.left_behind() == []
    lines = driver.log.read_text().splitlines()
    assert "stopping: saving 2 trials first (Ctrl-C again: stop without)" in lines
    [said] = [line for line in lines if line.startswith("interrupted: ")]
    assert said.startswith("interrupted: 2 of 3 trials have a checkpoint; resume with: ")
    assert said.endswith("tdmpc-ray resume out")
    stopped = mlflow_read.runs(store, "exp")
    assert set(stopped) == {"toy", run_name(0), run_name(1)}
    assert {run.info.status for run in stopped.values()} == {"KILLED"}
    saved = checkpointed(out)
    for seed, steps in saved.items():
        assert 500 <= steps < 6000
        assert steps_of(mlflow_read, store, stopped[run_name(seed)]) == list(range(100, steps + 1, 100))

    driver = Driver(tmp_path, runner_stub.__file__, "resume", "out", store)
    driver.wait_for(lambda: all(checkpointed(out)[seed] > saved[seed] + 400 for seed in saved))
    with pytest.raises(UserError, match="out is in use: another process is running this study"):
        resume_study(out, trainable=Stub)
    os.killpg(driver.process.pid, signal.SIGTERM)  # as `timeout`, batch systems and service managers do
    assert driver.end() == 143, driver.log.read_text()
    assert driver.left_behind() == []
    again = mlflow_read.runs(store, "exp")
    assert {run.info.status for run in again.values()} == {"KILLED"}

    # The rest on a cluster that was there before.
    (tmp_path / "slow").unlink()
    address = ray.get_runtime_context().gcs_address
    driver = Driver(
        tmp_path, runner_stub.__file__, "resume", "out", store, RAY_ADDRESS=address, RAY_AUTH_MODE="disabled"
    )
    assert driver.end() == 0, driver.log.read_text()
    assert ray.is_initialized()
    ended = mlflow_read.runs(store, "exp")
    assert set(ended) == {"toy", *map(run_name, range(3))}
    assert {run.info.status for run in ended.values()} == {"FINISHED"}
    for name, run in stopped.items():
        assert ended[name].info.run_id == run.info.run_id
    for seed in saved:
        run = ended[run_name(seed)]
        logged = steps_of(mlflow_read, store, run)
        assert logged == list(range(100, 6001, 100)), "the stops lost nothing"
        assert run.data.metrics["starts"] == 3
    assert steps_of(mlflow_read, store, ended[run_name(2)]) == list(range(100, 6001, 100))


@pytest.mark.usefixtures("local_ray")
def test_what_cannot_mend_itself_is_not_tried_again(store: str, tmp_path: Path) -> None:
    study = make_study(runner_stub.values(store, max_failures=1))
    quiet = Console(file=io.StringIO())
    result = run_study(study, tmp_path / "out", trainable=runner_stub.Refused, console=quiet)
    assert [trial.reason for trial in result.failed] == ["mend the environment"] * 2
    tries = {trial.name: trial.log.read_text().count("Failure #") for trial in result.failed if trial.log}
    assert tries == {"size=tiny seed=0": 1, "size=tiny seed=1": 2}


def test_a_trial_fails_where_the_study_has_a_ray_of_its_own(store: str, tmp_path: Path) -> None:
    (tmp_path / "fails").touch()
    driver = Driver(tmp_path, runner_stub.__file__, "run", "out", store, "1000")
    assert driver.end() == 1, driver.log.read_text()
    assert "failed: size=tiny seed=1: ValueError: as the test wants (log: " in driver.log.read_text()


@pytest.mark.usefixtures("local_ray")
def test_a_ray_that_is_too_small_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with ray_session({"CPU": 1, "GPU": 99}, said.append):
        pass
    assert said == [
        "note: 1 CPU and 99 GPUs have to be on one node, and none of the cluster has them: trials wait until "
        "it grows"
    ]
    monkeypatch.setattr(
        cluster, "cluster_capacity", lambda: Capacity("the cluster", ({"CPU": 1.0}, {"CPU": 1.0}))
    )
    said.clear()
    with ray_session({"CPU": 2}, said.append, [[{"CPU": 1.0}, {"CPU": 1.0}], [{"CPU": 2.0}]]):
        pass
    assert said == [
        "note: 2 CPUs have to be on one node, and none of the cluster has them: trials wait until it grows"
    ]


def test_the_random_policy_is_logged_again_after_an_early_kill(tmp_path: Path) -> None:
    said: list[str] = []
    first = random_baselines(["gym:Pendulum-v1"], tmp_path, said.append)
    assert random_baselines(["gym:Pendulum-v1"], tmp_path, said.append) == first
    assert len(said) == 1
