"""What commands make of their options, and what they leave."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import TRAIN

from tdmpc_ray import cli
from tdmpc_ray.cli import training
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file import sections
from tdmpc_ray.studies.file.python_path import remember_folder, use_folder_again
from tdmpc_ray.studies.file.spec import Study


def test_options_become_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tdmpc_ray.studies.run import runner

    started: list[tuple[Study, Path]] = []

    def fake_run(study: Study, out: Path, **_: Any) -> SimpleNamespace:
        started.append((study, out))
        return SimpleNamespace(exit_status=130)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "run_study", fake_run)
    options = ["--model-size", "1", "--preset", "light", "--seed", "7", "--num-env-runners", "4"]
    options += ["--set", "update.lr=1e-3", "--set", "planner.method=policy", "--eval-every", "5"]
    assert cli.main([*TRAIN, *options, "--num-learners", "1", "--num-gpus", "1", "--out", "here"]) == 130
    [(study, out)] = started
    assert out == "here"
    assert (study.trials(), study.model_sizes, study.seeds, study.steps) == (1, ["1"], [7], 10)
    assert study.settings() == {"update.lr": 0.001, "planner.method": "policy"}
    assert (study.evaluation.every, study.resources.num_env_runners) == (5, 4)
    assert (study.resources.num_learners, study.resources.gpus_per_learner) == (1, 1.0)
    assert cli.main(TRAIN) == 130
    name, stamp = started[1][1].name.rsplit("seed0-", 1)
    assert (started[1][1].parent, name) == (Path("results"), "walker-walk-size5-")
    assert len(stamp) == len("20260101-120000-3f9a51")
    assert cli.main([*TRAIN, "--algorithm", "tdmpc"]) == 130
    assert started[2][1].name.startswith("walker-walk-size1-seed0-tdmpc-")
    assert started[2][0].algorithm == "tdmpc"


def test_the_module_of_a_task_may_lie_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As beside a study file; Ray's processes find it, too, and a resume from elsewhere."""
    from tdmpc_ray.studies.run import runner

    code = "import gymnasium\ngymnasium.register('Own-v0', 'gymnasium.envs.classic_control:PendulumEnv')\n"
    (tmp_path / "minelab.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    begun: list[Any] = []

    def begins(run: Any, **_: Any) -> SimpleNamespace:
        begun.append(run.study)
        return SimpleNamespace(exit_status=0)

    monkeypatch.setattr(runner._Run, "__call__", begins)
    options = ["--steps", "2000", "--model-size", "tiny", "--out", "out", "--mlflow-uri", "sqlite:///m.db"]
    assert cli.main(["train", "--task", "gym:minelab:Own-v0", *options]) == 0
    assert begun[0].task == "gym:minelab:Own-v0"
    assert str(tmp_path) in os.environ["PYTHONPATH"].split(os.pathsep)
    assert (tmp_path / "out" / "python_path.txt").read_text() == f"{tmp_path}\n"


def test_mlflow_elsewhere_does_not_take_a_studys_models(monkeypatch: pytest.MonkeyPatch) -> None:
    from tdmpc_ray.studies.models import register

    addresses = []

    def add(source: Path, name: str, alias: str | None, uri: str | None) -> Any:
        addresses.append(uri)
        empty = dict.fromkeys(("checkpoint", "name", "version", "run_id", "uri", "model_uri"), "")
        return SimpleNamespace(alias=None, **empty)

    def log(folder: Path, *, uri: str | None, **_: Any) -> tuple[int, int]:
        addresses.append(uri)
        return 0, 0

    monkeypatch.setattr(register, "register", add)
    monkeypatch.setattr(register, "log_best_models", log)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    assert cli.main(["register", "run", "--name", "m"]) == cli.main(["log-models", "run"]) == 0
    assert addresses == [None, None]


def test_modules_beside_a_study_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("lab", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "/before")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "lab/my_arms.py").write_text(
        "import gymnasium\ngymnasium.register('Mine-v0', 'gymnasium.envs.classic_control:PendulumEnv', "
        "max_episode_steps=20)\n"
    )
    (tmp_path / "lab/s.yaml").write_text("name: s\ntask: gym:my_arms:Mine-v0\nsteps: 50000\n")
    options = ["--gpus", "0", "--cpus", "4", "--env-ms", "2", "--core-gflops", "50"]
    assert cli.main(["plan", "../lab/s.yaml", *options]) == 0, capsys.readouterr().err
    assert os.environ["PYTHONPATH"] == f"{tmp_path}/lab:/before", "what Ray's processes begin with"

    remember_folder(tmp_path / "work", Path("../lab"))
    sys.path.remove(f"{tmp_path}/lab")
    os.environ["PYTHONPATH"] = ""
    use_folder_again(tmp_path / "work")
    assert sys.path[0] == os.environ["PYTHONPATH"] == f"{tmp_path}/lab"
    (tmp_path / "lab").rename(tmp_path / "gone")
    use_folder_again(tmp_path / "work")


def test_defaults_are_those_of_a_study() -> None:
    defaults = {name: p.default for name, p in inspect.signature(training.train).parameters.items()}
    study = Study.model_validate({"name": "x", "task": "walker-walk", "steps": 1})
    assert (defaults["algorithm"], study.model_sizes) == (study.algorithm, ["5"])
    assert [defaults["seed"]] == study.seeds
    assert defaults["preset"] == study.preset
    assert defaults["eval_every"] == sections.Evaluation().every
    assert defaults["eval_episodes"] == sections.Evaluation().episodes
    assert defaults["checkpoint_every"] == sections.Checkpoint().every
    assert defaults["experiment"] == sections.Tracking().experiment
    resources = sections.Resources()
    for name in ("num_env_runners", "num_envs_per_env_runner", "num_learners"):
        assert defaults[name] == getattr(resources, name)


def test_evaluate_prints_every_episode(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tdmpc_ray.rllib.evaluation import of_checkpoints as evaluate

    def fake(
        path: Path,
        episodes: int,
        seed: int,
        video: Path | None,
        grid: Path | None,
        on_progress: Callable[[float], None],
        settings: dict[str, Any],
        task: str | None,
        record: Path | None,
        env: str | None,
    ) -> dict[str, Any]:
        assert (path, episodes, seed, task, env) == (Path("run"), 2, 5, "cup-catch", "lab:Arm")
        assert record == Path("shown")
        assert (video, grid) == (Path("a.mp4"), Path("a.png"))
        assert settings == {"planner.method": "cem"}
        on_progress(0.5)
        return {"returns": [10.0, 20.0], "lengths": [500, 400], "successes": [1.0, 0.0]}

    monkeypatch.setattr(evaluate, "evaluate_checkpoint", fake)
    options = ["--episodes", "2", "--seed", "5", "--video", "a.mp4", "--grid", "a.png", "--task", "cup-catch"]
    options += ["--set", "planner.method=cem", "--record", "shown", "--env", "lab:Arm"]
    assert cli.main(["evaluate", "run", *options]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "episode 1: return 10.0, 500 steps, success",
        "episode 2: return 20.0, 400 steps, no success",
        "mean return 15.0 (standard deviation 5.0), success 50%",
        "video: a.mp4",
        "frames: a.png",
        "episodes: shown",
    ]


def test_an_unexpected_error_leaves_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tdmpc_ray.studies.results import compare

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("out of luck\nsecond line")

    monkeypatch.setattr(compare, "compare", fail)
    assert cli.main(["compare", "x"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: RuntimeError: out of luck (details: ")
    log = Path(line.split("details: ")[1].split(";")[0])
    assert "Traceback" in log.read_text()
    log.unlink()
    monkeypatch.setenv("TDMPC_RAY_DEBUG", "1")
    with pytest.raises(RuntimeError, match="out of luck"):
        cli.main(["compare", "x"])


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (UserError("no"), 2)])
def test_status_of_interrupts(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tdmpc_ray.studies.results import compare

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(compare, "compare", fail)
    assert cli.main(["compare", "x"]) == status
    assert capsys.readouterr().err == ("interrupted\n" if status == 130 else "error: no\n")
