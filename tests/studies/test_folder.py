"""A study's folder: who may begin in it, and what it is called."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import runner_stub
from runner_stub import Stub

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.folder import begin, only_process
from tdmpc_ray.studies.file.load import load_study, make_study
from tdmpc_ray.studies.file.names import new_name
from tdmpc_ray.studies.file.place import StudyPlace
from tdmpc_ray.studies.run import runner
from tdmpc_ray.studies.run.runner import resume_study, run_study


def test_of_two_starts_into_one_folder_the_later_one_writes_nothing(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, out = make_study(runner_stub.values(store)), tmp_path / "out"
    with contextlib.ExitStack() as other:

        class Slow(runner._Run):
            """Meanwhile another process begins."""

            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                other.enter_context(only_process(out, makes=True))
                (out / "study.yaml").write_text("the other's")

        monkeypatch.setattr(runner, "_Run", Slow)
        with pytest.raises(UserError, match="out is in use: another process is running this study"):
            run_study(study, out, trainable=Stub)
    monkeypatch.undo()
    with pytest.raises(UserError, match="out is not empty: continue it with"):
        run_study(study, out, trainable=Stub)
    assert (out / "study.yaml").read_text() == "the other's"
    assert {path.name for path in out.iterdir()} == {"study.yaml", ".lock"}
    new = StudyPlace.of(tmp_path / "new")
    with new.taken(print, is_new=True):
        pass  # a start that was killed before it wrote anything leaves its lock: that is no study yet
    with new.taken(print, is_new=True):
        pass


def test_names_of_new_folders_differ_and_fit(store: str, tmp_path: Path) -> None:
    name = "\u00fc" + "+".join(["walker-walk"] * 20).replace("+", "-")
    names = [new_name(name) for _ in range(2)]
    assert names[0] != names[1], "of the same second"
    assert all(len(f"{name}-again-123456.log".encode()) < 143 for name in names)
    begin(make_study(runner_stub.values(store, name=name)), tmp_path / names[0], None)
    assert load_study(tmp_path / names[0] / "study.yaml").name == name
    with pytest.raises(UserError, match="File name too long; choose another --out"):
        run_study(make_study(runner_stub.values(store)), tmp_path / ("x" * 300), trainable=Stub)
    with pytest.raises(UserError, match="there is no folder"):
        resume_study(tmp_path / ("x" * 300), trainable=Stub)
