"""The command line: what it says and with which status it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import TRAIN

from tdmpc_ray import cli
from tdmpc_ray.cli.common import print_table
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.checkpoints.load import MODULE, find_checkpoint


def run(*args: str, folder: Path, **environment: str | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tdmpc_ray.cli", *args],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={name: value for name, value in {**os.environ, **environment}.items() if value is not None},
        check=False,
    )


def test_a_table_keeps_its_lines_in_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("name", "steps", "folder"), ("a-run", "10/20", "results/a-run")]
    monkeypatch.setenv("COLUMNS", "20")
    print_table(rows)  # a pipe has no width
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table(rows)
    assert capsys.readouterr().out.splitlines() == [
        "name   steps  folder",
        "a-run  10/20  results/a-run",
        "name   steps",
        "  folder",
        "a-run  10/20",
        "  results/a-run",
    ]


@pytest.mark.parametrize(
    ("args", "status", "parts"),
    [
        (["train", "--help"], 0, {"ray", "torch", "mlflow", "gymnasium"}),
        (["list", "--address", "http://[::1]:9"], 2, {"torch", "mlflow", "gymnasium"}),
        (["compare", "absent", "--mlflow-uri", "sqlite:///absent.db"], 2, {"ray", "torch"}),
    ],
    ids=["help", "jobs", "compare"],
)
def test_a_short_answer_needs_none_of_the_heavy_parts(
    args: list[str], status: int, parts: set[str], tmp_path: Path
) -> None:
    code = f"import sys; from tdmpc_ray.cli import main; print(main({args}), {parts} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"{status} set()"
    if status == 0:
        assert "Example: tdmpc-ray train --task walker-walk" in done.stdout


COMMANDS = (
    "train",
    "tune",
    "resume",
    "runs",
    "evaluate",
    "compare",
    "report",
    "plan",
    "sync",
    "submit",
    "import-official",
    "export-official",
    "export",
    "register",
    "log-models",
    "serve",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    assert f"Example: tdmpc-ray {command} " in capsys.readouterr().out


def test_version_and_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tdmpc-ray 0.")
    assert cli.main(["--help"]) == 0
    overview = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n  {command} " in overview
    assert "..." not in overview.split("Commands:")[1]  # no description is cut


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["train", "--task", "walker-walk"], "train needs --steps, such as --steps 100000"),
        (["train", "--steps", "10"], "train needs --task, such as --task walker-walk"),
        (
            ["train", "--task", "walker-wlk", "--steps", "10"],
            "--task: unknown task 'walker-wlk': did you mean 'walker-walk'?",
        ),
        (["train", "--task", "walker-walk", "--steps", "-5"], "--steps: must be greater than 0, not -5"),
        (
            [*TRAIN, "--model-size", "2"],
            "--model-size: unknown model size '2': choose one of: 0.05, 0.1, tiny, 0.3",
        ),
        ([*TRAIN, "--preset", "lite"], "--preset: unknown preset 'lite': did you mean 'light'?"),
        (
            [*TRAIN, "--set", "update.lrr=1"],
            "--set: unknown setting 'update.lrr': did you mean 'update.lr'?",
        ),
        (
            [*TRAIN, "--set", "update.learning_rate=1"],
            "--set: unknown setting 'update.learning_rate': did you mean 'update.lr'?",
        ),
        ([*TRAIN, "--num-gpus", "99"], "a trial needs 99 GPUs and this machine has "),
        ([*TRAIN, "--set", "update.lr=-1"], "update.lr must be positive, not -1.0"),
        (
            [*TRAIN, "--set", "update.lr=2021-13-45"],
            "--set update.lr=2021-13-45: '2021-13-45' is not a value",
        ),
        (["train", "--task", "a b", "--steps", "1"], "--task: unknown task 'a b'"),
        ([*TRAIN, "--set", "update.lr"], "--set update.lr: write KEY=VALUE, such as --set update.lr=1e-3"),
        (
            [*TRAIN, "--num-env-runners", "-1"],
            "--num-env-runners: must be greater than or equal to 0, not -1",
        ),
        ([*TRAIN, "--mlflow-uri", "here"], "'here' is not an address of MLflow"),
        (["tune"], "tune needs a study file"),
        (["train", "--steps", "5"], "train needs --task"),
        (["tune", "absent.yaml"], "cannot read absent.yaml: No such file or directory"),
        (["resume", "absent"], "there is no folder absent"),
        (
            ["train", "--task", "walker-walk", "--steps", "2k"],
            "Invalid value for '--steps': must be a valid integer",
        ),
        (["evaluate", "absent"], "no checkpoint at absent: there is no such folder"),
        (["evaluate", "x", "--set", "update.lr=1"], "only settings of the planner can change after the tr"),
        (["plan", "x.yaml", "--gpus", "0", "--cpus", "0"], "a cluster of 0 CPUs and 0 GPUs runs no"),
        (["plan", "x.yaml", "--gpus", "inf", "--cpus", "4"], "a cluster of 4 CPUs and inf GPUs runs"),
        (["compare", "x", "--mlflow-uri", "sqlite:///absent.db"], "no MLflow database at "),
        (["report", "x", "--mlflow-uri", "sqlite:///absent.db"], "no MLflow database at "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_status_2(
    args: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import ray

    ray.shutdown()  # as in a new process: another test's may be up
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    assert cli.main(args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    assert line.startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []


def test_wrong_option_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = run(*TRAIN, "--sed", "3", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: No such option: --sed")
    assert "--seed" in line


@pytest.mark.parametrize(
    "args",
    [
        [*TRAIN, "--set", "data.demonstrations=s3://key:secret@bucket/x"],
        ["tune", "s3://key:secret@bucket/x.yaml"],
        ["evaluate", "here", "--record", "s3://key:secret@bucket/x"],
        ["report", "exp", "--out", "s3://key:secret@bucket/x"],
        ["submit", "x.yaml", "--with", "s3://key:secret@bucket/x"],
    ],
    ids=lambda args: " ".join(args[:1] + args[-2:-1]),
)
def test_an_address_where_a_path_must_be(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(args) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "s3://... is an address, and this takes a folder or file: " in line
    assert "secret" not in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "args",
    [
        [*TRAIN, "--out"],
        [*TRAIN, "--start-from"],
        ["resume"],
        ["evaluate"],
        ["register", "--name", "m"],
        ["log-models"],
        ["sync"],
        ["serve"],
        ["export"],
    ],
    ids=" ".join,
)
def test_an_address_that_cannot_be_reached(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*args, "s3://key:secret@bucket/x?regoin=here"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "error: cannot reach s3://bucket/x?regoin=***: Unexpected query parameter in S3 URI"
    )
    assert "secret" not in line
    assert list(tmp_path.iterdir()) == []


def test_a_strangers_checkpoint_is_not_picked_up(tmp_path: Path) -> None:
    networks = tmp_path / "run/checkpoint" / MODULE
    networks.mkdir(parents=True)
    (networks / "metadata.json").touch()
    assert find_checkpoint(tmp_path) == tmp_path / "run/checkpoint"
    tmp_path.chmod(0o1777)
    with pytest.raises(UserError, match=r"^everybody may write to .*: name the folder of the run"):
        find_checkpoint(tmp_path)
    assert find_checkpoint(tmp_path / "run") == tmp_path / "run/checkpoint"
    (tmp_path / "b/c/d").mkdir(parents=True)
    (tmp_path / "run").rename(tmp_path / "b/c/d/e")
    with pytest.raises(UserError, match="no checkpoint in"):
        find_checkpoint(tmp_path / "b")


def test_a_task_that_nothing_handles_leaves_no_folder(tmp_path: Path) -> None:
    options = ("--steps", "300", "--out", "out")
    done = run("train", "--task", "gym:CartPole-v1", *options, folder=tmp_path, DISPLAY=None, MUJOCO_GL=None)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()  # nor what a simulator says of a missing display
    assert line.startswith("error: task 'gym:CartPole-v1' has actions Discrete: choose one with")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run("evaluate", "empty", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: no checkpoint in empty: give a checkpoint folder")
