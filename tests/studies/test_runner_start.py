"""What a study is told, and where its secrets lie, before its trials begin."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import runner_stub
import yaml
from ray import cloudpickle
from rich.console import Console
from runner_stub import Stub

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.folder import begin
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.file.notes import notes
from tdmpc_ray.studies.file.record import local_runs
from tdmpc_ray.studies.run import runner
from tdmpc_ray.studies.run.runner import resume_study, run_study
from tdmpc_ray.studies.words import mlflow_command

# Ray's workers cannot import test modules.
cloudpickle.register_pickle_by_value(runner_stub)


def test_passwords_stay_in_private_files(tmp_path: Path) -> None:
    uri = "postgresql+psycopg2://bob:s3cret-\u00e4\t'@db/x"  # YAML writes some of it in another way
    study = make_study(runner_stub.values(uri))
    given = tmp_path / "mine.yaml"
    given.write_text(yaml.safe_dump({"tracking": {"uri": uri}}, allow_unicode=True))
    attached = begin(study, tmp_path / "out", given)
    assert [path.name for path in attached] == ["study.yaml", "mine.yaml"]
    assert all("s3cret" not in path.read_text() and "***@db" in path.read_text() for path in attached)
    assert "s3cret" in (tmp_path / "out" / "study.yaml").read_text()  # a resume needs it
    assert (tmp_path / "out" / "study.yaml").stat().st_mode & 0o077 == 0
    assert "s3cret" not in mlflow_command(uri)


def test_folders_that_cannot_be_used(store: str, tmp_path: Path) -> None:
    study = make_study(runner_stub.values(store))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(UserError, match=r"taken holds something else"):
        run_study(study, tmp_path / "taken", trainable=Stub)
    with pytest.raises(UserError, match=r"taken is not a study's folder: it has no study\.yaml$"):
        resume_study(tmp_path / "taken", trainable=Stub)
    (tmp_path / "taken" / "study.yaml").write_text(study.to_yaml())
    with pytest.raises(UserError, match=r"taken is not empty: continue it with `tdmpc-ray resume .*taken`"):
        run_study(study, tmp_path / "taken", trainable=Stub)
    with pytest.raises(UserError, match=r"holds something else: choose a new folder, such as --out .*/NAME"):
        run_study(study, tmp_path, trainable=Stub)
    with pytest.raises(UserError, match=r"study\.yaml; the newest of the 1 in it is .*taken$"):
        resume_study(tmp_path, trainable=Stub)
    (tmp_path / "taken" / "tune").mkdir()
    (tmp_path / "taken" / "tune" / "experiment_state-2026.json").write_text('{"trial_da')
    with pytest.raises(UserError, match=r"cannot resume: .*experiment_state-2026\.json is damaged"):
        resume_study(tmp_path / "taken", trainable=Stub)
    for task, message in (("gym:CartPole-v1", "has actions Discrete"), ("lift-cube", "needs maniskill")):
        with pytest.raises(UserError, match=message):
            run_study(study.model_copy(update={"task": task}), tmp_path / "new", trainable=Stub)
        assert not (tmp_path / "new").exists()
    lost = make_study(runner_stub.values("http://127.0.0.1:9"))
    with pytest.raises(UserError, match=r"MLflow at http://127\.0\.0\.1:9 cannot be used"):
        run_study(lost, tmp_path / "new", trainable=Stub)
    assert not (tmp_path / "new").exists()


def test_a_study_of_random_steps_alone_is_said_to_learn_nothing(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object) -> None:
        raise UserError("far enough")

    monkeypatch.setattr(runner, "ray_session", stop)
    for number, (steps, settings) in enumerate([(1000, {}), (1001, {}), (300, {"data.seed_steps": 200})]):
        printed = io.StringIO()
        study = make_study({**runner_stub.values(store), "steps": steps, "set": settings})
        with pytest.raises(UserError, match="far enough"):
            run_study(study, tmp_path / str(number), trainable=Stub, console=Console(file=printed, width=200))
        assert [run.status for run in local_runs([tmp_path / str(number)])] == ["failed"]
        note = "note: nothing will be learned, as updates begin after 1,000 steps: take more steps, or set"
        assert (note in printed.getvalue()) == (number == 0)


def test_a_note_says_whose_random_steps_they_are(store: str) -> None:
    values = {**runner_stub.values(store), "steps": 3500, "algorithm": ["tdmpc", "tdmpc2"]}
    random = [note for note in notes(make_study(values)) if "are random (data.seed_steps)" in note]
    assert [re.findall(r"steps (of tdmpc2?) are", note) for note in random] == [["of tdmpc"], ["of tdmpc2"]]


def test_a_note_says_where_actions_last_longer_in_published_runs(store: str) -> None:
    tasks = ["cup-catch", "walker-walk", "cartpole-swingup@8", "mw-reach"]
    values = {**runner_stub.values(store), "task": None, "tasks": tasks, "algorithm": ["tdmpc", "tdmpc2"]}
    said = [note for note in notes(make_study(values)) if "was published with actions" in note]
    assert said == [
        "tdmpc was published with actions of 4 simulator steps on cup-catch, here they have 2: that is task "
        "cup-catch@4"
    ]


def test_the_password_of_mlflow_lies_in_private_files_alone(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "http://lab:geheim-7@127.0.0.1:9"
    tracking = {"uri": uri, "experiment": "exp", "required": False}
    study = make_study(runner_stub.values(uri, steps=500, seeds=[0], tracking=tracking))
    printed = io.StringIO()
    result = run_study(study, tmp_path / "out", trainable=Stub, console=Console(file=printed, width=200))
    assert result.finished == 1
    assert "no results to show: MLflow has not got this study yet" in printed.getvalue()
    assert "geheim-7" not in printed.getvalue()
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    held = {path for path in files if b"geheim-7" in path.read_bytes()}
    assert len(files) > 5
    assert held
    assert {path.stat().st_mode & 0o077 for path in held} == {0}, held


def test_a_ctrl_c_before_the_trials_says_how_to_go_on(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "ray_session", interrupted)
    printed, study = io.StringIO(), make_study(runner_stub.values(store))
    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path / "out", trainable=Stub, console=Console(file=printed, width=200))
    last = printed.getvalue().splitlines()[-1]
    assert last.startswith("resume with: ")
    assert last.endswith(f"tdmpc-ray resume {tmp_path}/out")
    (run,) = local_runs([tmp_path / "out"])
    assert run.status == "stopped"
