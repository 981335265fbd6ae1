"""Studies whose results lie at an address, of a real S3 server."""

from __future__ import annotations

import contextlib
import io
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import runner_stub
from pyarrow.fs import FileSelector, FileSystem
from ray import cloudpickle
from rich.console import Console
from runner_stub import Stub
from test_moved import quiet, stop_when

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file import mirror
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.file.place import StudyPlace
from tdmpc_ray.studies.run.runner import resume_study, run_study
from tdmpc_ray.studies.run.sync import sync_study

cloudpickle.register_pickle_by_value(runner_stub)  # Ray's workers cannot import test modules

STEPS = 400


def listed(address: str) -> set[str]:
    """The files at an address."""
    filesystem, folder = FileSystem.from_uri(address)
    infos = filesystem.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True))
    return {info.path.removeprefix(f"{folder}/") for info in infos if info.is_file}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Another machine at each call: one that has no files of a study."""

    def go_to(name: str) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        return tmp_path / name

    return SimpleNamespace(go_to=go_to)


@pytest.mark.usefixtures("local_ray")
def test_a_study_goes_on_on_another_machine(
    bucket: str, store: str, machine: SimpleNamespace, mlflow_read: SimpleNamespace
) -> None:
    address, console = bucket.format("/studies/toy"), Console(file=io.StringIO(), width=200)
    tracking = {"uri": store, "experiment": "exp", "models": False}
    study = make_study(
        runner_stub.values(
            store,
            seeds=[*range(3)],
            steps=STEPS,
            checkpoint={"every": 100},
            resources={"max_concurrent_trials": 1},
            tracking=tracking,
        )
    )
    machine.go_to("a")
    thread = stop_when(lambda: any("/checkpoint_" in name for name in listed(address)))
    stopped = run_study(study, address, trainable=Stub, console=console)
    thread.join()
    assert stopped.signum == signal.SIGTERM
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "in s3://bucket/studies/toy?" in said
    assert "resume 's3://bucket/studies/toy?" in said
    assert "secret" not in said
    with pytest.raises(UserError, match="is not empty: continue it with `tdmpc-ray resume s3://bucket"):
        run_study(study, address, trainable=Stub, console=quiet())
    machine.go_to("b")
    result = resume_study(address, trainable=Stub, console=quiet())
    assert (result.finished, result.exit_status) == (3, 0)
    (out,) = Path("results").iterdir()
    assert result.out == out.absolute()
    here = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    there = listed(address)
    assert here - {".lock"} == {name for name in there if not name.startswith("tune/")}
    assert len({name for name in there if name.endswith("stub.json")}) >= 3
    machine.go_to("a")  # whose files are older now
    console = Console(file=io.StringIO(), width=200)
    assert resume_study(next(Path("results").iterdir()), trainable=Stub, console=console).finished == 3
    assert "nothing was left to do" in console.file.getvalue()  # type: ignore[attr-defined]
    runs = mlflow_read.runs(store, "exp")
    assert len(runs) == 4
    for seed in range(3):
        logged = mlflow_read.points(store, runs[f"size=tiny seed={seed}"], "train/return")
        assert [step for step, _ in logged] == [*range(100, STEPS + 1, 100)]


@pytest.mark.usefixtures("local_ray")
def test_what_waits_for_mlflow_comes_along(
    bucket: str, store: str, machine: SimpleNamespace, mlflow_read: SimpleNamespace
) -> None:
    address = bucket.format("/studies/waiting")
    nowhere = {"uri": "http://127.0.0.1:9", "experiment": "exp", "required": False}
    values = runner_stub.values("", seeds=[0], steps=100, tracking=nowhere)
    machine.go_to("a")
    run_study(make_study(values), address, trainable=Stub, console=quiet())
    machine.go_to("b")
    assert sync_study(address, store).delivered > 0
    (run,) = [run for name, run in mlflow_read.runs(store, "exp").items() if "seed=0" in name]
    assert mlflow_read.points(store, run, "train/return") == [(100, 100.0)]
    assert "mlflow/mlflow_spool.jsonl" not in listed(address)
    machine.go_to("a")
    assert sync_study(address, store).delivered == 0


def test_two_machines_do_not_work_on_one_study(
    bucket: str, machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "BEAT_S", 0.2)
    place, said = bucket.format("/studies/shared"), list[str]()
    machine.go_to("a")
    ours = StudyPlace.of(place)
    with ours.taken(said.append, is_new=True):
        (ours.out / "study.yaml").write_text("mine")
        machine.go_to("b")
        theirs, has_it = StudyPlace.of(place), threading.Event()
        while not ours.mirror.has("study.yaml"):  # type: ignore[union-attr]
            has_it.wait(0.05)
        theirs.require_study()
        with (
            pytest.raises(UserError, match=r"is in use: .* is running this study"),
            theirs.taken(said.append),
        ):
            pass
        copy = mirror._Copier._copy
        with monkeypatch.context() as cut, contextlib.ExitStack() as stack:
            cut.setattr(mirror._Copier, "_copy", lambda self, last=False: None)
            has_it.wait(1.0)  # a copy that had begun
            stack.enter_context(theirs.taken(said.append))
            cut.setattr(mirror._Copier, "_copy", copy)
            assert (theirs.out / "study.yaml").read_text() == "mine"
            (theirs.out / "study.yaml").write_text("theirs")
            while not said:
                has_it.wait(0.05)
    assert said == ["note: another machine has gone on with this study: end this process"]
    assert (ours.out / "study.yaml").read_text() == "mine"
    with StudyPlace.of(ours.out).taken(said.append):
        assert (ours.out / "study.yaml").read_text() == "theirs"


def test_an_address_that_has_no_study_is_refused(bucket: str, machine: SimpleNamespace) -> None:
    machine.go_to("a")
    with pytest.raises(
        UserError, match=r"^s3://bucket names no folder: add one, such as s3://bucket/my-study"
    ):
        StudyPlace.of(bucket.format(""))
    with pytest.raises(UserError, match=r"s3://bucket/none\?.* is not a study's folder"):
        resume_study(bucket.format("/none"))
    nowhere = "s3://key:secret@bucket/x?scheme=http&endpoint_override=127.0.0.1%3A9"
    with pytest.raises(UserError, match=r"^cannot reach s3://bucket/x"):
        resume_study(nowhere)
    assert not Path("results").exists()
