"""Published checkpoints in and out, by command."""

import json
import re
from pathlib import Path

import onnxruntime
import pytest
import torch
import yaml

from tdmpc_ray import cli
from tdmpc_ray.core.agents import find_agent
from tdmpc_ray.core.agents.tdmpc2.official import to_official
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.config import agent_config
from tdmpc_ray.envs import make_env
from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.rllib.acting.module import AgentModule
from tdmpc_ray.rllib.checkpoints.load import MODULE, load_module
from tdmpc_ray.rllib.checkpoints.manifest import seal
from tdmpc_ray.studies.file.folder import only_process
from tdmpc_ray.studies.run.runner import resume_study

TASK = "gym:Pendulum-v1"
ROOT = Path(__file__).parents[1]


def published(folder: Path, obs_dim: int = 3) -> dict:
    """A file as the published code writes it, for a model of no published size."""
    agent = agent_config("tiny", overrides={"model.num_q": 3})
    torch.manual_seed(0)
    state = to_official(WorldModel((obs_dim,), 1, agent.model))
    torch.save({"model": state}, folder / "theirs.pt")
    return state


def test_there_and_back_is_bitwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    theirs = published(tmp_path)
    assert cli.main(["import-official", "theirs.pt", "--task", TASK, "--out", "here"]) == 0
    printed = capsys.readouterr().out
    with only_process(tmp_path / "taken", makes=True):
        assert cli.main(["import-official", "theirs.pt", "--task", TASK, "--out", "taken"]) == 2
        assert "taken is in use: another process is running this study" in capsys.readouterr().err
        assert [path.name for path in (tmp_path / "taken").iterdir()] == [".lock"]
    assert "model size tiny, with {'model.num_q': 3, 'model.episodic': False}" in printed
    for options in ([], ["--flat"]):
        assert cli.main(["export-official", "here", "back.pt", *options]) == 0
        back = torch.load("back.pt", weights_only=True)["model"]
        assert ("_Qs.params.0" in back) == bool(options)
        for key, value in back.items():
            if key in theirs and isinstance(value, torch.Tensor):
                assert torch.equal(value, theirs[key]), key
    assert cli.main(["evaluate", "here", "--episodes", "1"]) == 0
    assert "mean return" in capsys.readouterr().out


def test_tdmpc_there_and_back_is_bitwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    agent = find_agent("tdmpc")
    cfg = agent_config("tiny", overrides={"model.latent_dim": 30}, algorithm="tdmpc").model
    theirs = agent.to_published(agent.make_networks((3,), 1, cfg))
    torch.save(theirs, "theirs.pt")
    command = ["import-official", "theirs.pt", "--task", "pendulum-swingup", "--out", "here"]
    assert cli.main(command) == 2
    assert "theirs.pt holds no checkpoint of the published TD-MPC2 code" in capsys.readouterr().err
    assert cli.main([*command, "--algorithm", "tdmpc"]) == 0
    assert "model size tiny, with {'model.latent_dim': 30}" in capsys.readouterr().out
    planner = load_module("here").cfg.planner
    assert planner.at(load_module("here").num_updates).horizon == 5, "it has learned: its schedules are over"
    assert cli.main(["export-official", "here", "back.pt", "--flat"]) == 2
    assert "leave --flat out" in capsys.readouterr().err
    assert cli.main(["export-official", "here", "back.pt"]) == 0
    back = torch.load("back.pt", weights_only=True)
    for name, state in theirs.items():
        assert list(back[name]) == list(state)
        assert all(torch.equal(back[name][key], value) for key, value in state.items())


def test_the_exported_planner_runs_the_control_loop_of_the_docs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"planner.iterations": 1}
    config = TDMPC2Config().environment("walker-walk").training(model_size="tiny", overrides=settings)
    env = make_env("walker-walk")
    module = AgentModule(
        observation_space=env.observation_space,
        action_space=env.action_space,
        model_config=config.model_config,
    )
    module.save_to_path(str(tmp_path / "here" / MODULE))
    seal(tmp_path / "here")
    assert cli.main(["export", "here", "--what", "planner", "--format", "onnx"]) == 0
    printed = capsys.readouterr().out
    assert "exported: planner.onnx" in printed
    assert "input prev_mean: (1, 3, 6) float32" in printed
    session = onnxruntime.InferenceSession("planner.onnx")
    said = json.loads(session.get_modelmeta().custom_metadata_map["tdmpc_ray"])
    assert said["task"] == "walker-walk"
    assert said["action"] == {"low": [-1.0] * 6, "high": [1.0] * 6}
    parts = [(part["path"], part["size"]) for part in said["observation"]["parts"]]
    assert parts == [(["orientations"], 14), (["height"], 1), (["velocity"], 9)]
    [code] = re.findall("```python\n(.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL)
    exec(compile(code, "docs/export.md", "exec"), {})
    assert re.search(r"return \d+, \d+ decisions per second", capsys.readouterr().out)


def test_a_model_for_images_comes_in_with_its_observations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    agent = agent_config("5", overrides={"model.num_q": 3})
    state = to_official(WorldModel((9, 64, 64), 1, agent.model))
    torch.save({"model": state}, "theirs.pt")
    task = "pendulum-swingup"
    assert cli.main(["import-official", "theirs.pt", "--task", task, "--out", "here", "--steps", "10"]) == 0
    assert "model size 5, with {'model.num_q': 3}" in capsys.readouterr().out
    assert yaml.safe_load(Path("here/study.yaml").read_text())["obs"] == "rgb"
    assert cli.main(["export-official", "here", "back.pt"]) == 0
    back = torch.load("back.pt", weights_only=True)["model"]
    assert all(torch.equal(back[k], v) for k, v in state.items() if isinstance(v, torch.Tensor))


def test_a_model_of_several_tasks_comes_in_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    agent = agent_config("tiny", overrides={"model.task_dim": 8})
    state = to_official(WorldModel((39,), 4, agent.model, action_dims=[1, 4]))
    torch.save({"model": state}, "theirs.pt")

    def run(task: str, *, out: str = "here") -> int:
        return cli.main(["import-official", "theirs.pt", "--task", task, "--out", out, "--steps", "10"])

    for task, message in (
        ("mw-reach", "holds a model of 2 tasks, and --task names one task: name mt30, mt80 or"),
        ("mt30", "holds a model of 2 tasks, and --task names 30 tasks"),
        (
            "mw-reach+pendulum-swingup",
            "its task 0 has actions of 1 numbers, mw-reach has 4",
        ),
    ):
        assert run(task, out="wrong") == 2
        assert message in capsys.readouterr().err
        assert not Path("wrong").exists()
    assert run("pendulum-swingup+mw-reach") == 0
    assert "model size tiny, with {'model.task_dim': 8}" in capsys.readouterr().out
    assert cli.main(["export-official", "here", "back.pt"]) == 0
    back = torch.load("back.pt", weights_only=True)["model"]
    assert all(torch.equal(back[k], v) for k, v in state.items() if isinstance(v, torch.Tensor))
    assert cli.main(["evaluate", "here", "--task", "mw-reach", "--episodes", "1"]) == 0
    assert "100 steps" in capsys.readouterr().out


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/nothing"])
def test_a_place_that_cannot_be_written(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    published(tmp_path)
    Path("file").touch()
    assert cli.main(["import-official", "theirs.pt", "--task", TASK, "--out", out]) == 2
    assert f"error: cannot write to {out}: " in capsys.readouterr().err


def test_no_steps_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    published(tmp_path)
    arguments = ["import-official", "theirs.pt", "--task", TASK, "--out", "here", "--steps", "0"]
    assert cli.main(arguments) == 2
    assert "--steps" in capsys.readouterr().err
    assert not Path("here").exists()


@pytest.mark.usefixtures("local_ray")
def test_training_goes_on_from_published_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    published(tmp_path)
    assert cli.main(["import-official", "theirs.pt", "--task", TASK, "--out", "here", "--steps", "60"]) == 0
    study = yaml.safe_load(Path("here/study.yaml").read_text())
    study["set"] |= {"data.seed_steps": 50, "update.batch_size": 8, "update.lr": 1e-9}
    study["set"] |= {"planner.num_samples": 16, "planner.num_elites": 4, "planner.num_pi_trajs": 2}
    study["evaluation"] = {"every": 60, "episodes": 1}
    Path("here/study.yaml").write_text(yaml.safe_dump(study))
    Path("here").rename("there")  # a folder may be moved before it is trained on
    result = resume_study(Path("there"))
    assert (result.finished, result.exit_status) == (1, 0)
    [checkpoint] = result.checkpoints.values()
    before, after = load_module(Path("there/imported")), load_module(checkpoint)
    assert (int(before.grad_updates), int(after.grad_updates)) == (1, 61)
    # Sixty updates at this rate leave the networks where the file had them.
    for name, value in before.networks.state_dict().items():
        torch.testing.assert_close(after.networks.state_dict()[name], value, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["import-official", "absent.pt", "--task", TASK, "--out", "o"],
            "cannot read absent.pt: No such file",
        ),
        (["import-official", "theirs.pt", "--task", "walker-wlk", "--out", "o"], "unknown task 'walker-wlk'"),
        (
            ["import-official", "theirs.pt", "--task", TASK, "--out", "o"],
            "the checkpoint belongs to a model of another shape: encoder.0.weight is (64, 7) in the file and",
        ),
        (
            ["import-official", "theirs.pt", "--task", TASK, "--out", "."],
            ". holds something else: choose a new folder",
        ),
        (["export-official", "absent", "x.pt"], "no checkpoint at absent: there is no such folder"),
        (["export", "absent"], "no checkpoint at absent: there is no such folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_exchanged(
    args: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    published(tmp_path, obs_dim=7)
    assert cli.main(args) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.pt"]
