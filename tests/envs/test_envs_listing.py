"""`tdmpc-ray envs`: which tasks there are, and which can be built here."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from tdmpc_ray.cli import main
from tdmpc_ray.envs import register_task, registered
from tdmpc_ray.envs.listing import find_tasks, task_status


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["envs", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_one_line_for_each_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs"]) == 0
    printed = capsys.readouterr()
    header, *rows = printed.out.splitlines()
    assert header.split() == ["task", "suite", "obs", "act", "steps", "metric", "installed"]
    assert len(rows) == 147
    table = {row.split()[0]: row.split()[1:] for row in rows}
    assert table["walker-walk"] == ["dmcontrol", "24", "6", "500", "return", "yes"]
    assert table["dog-run"] == ["dmcontrol", "223", "38", "500", "return", "yes"]
    assert table["mw-button-press-topdown-wall"] == ["metaworld", "39", "4", "100", "success", "yes"]
    assert table["mt30"] == ["multitask", "24", "6", "500", "return", "yes"]
    assert "gym:*" in printed.err  # a pipe gets tasks alone


def test_a_broken_task_of_third_parties_takes_no_other_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registered, "_tasks", {})
    register_task("cheetah-lab", lambda render_mode=None: object(), episode_length=5)  # type: ignore[arg-type,return-value]
    table = {row.split()[0]: row for row in lines(capsys, "cheetah")[1:]}
    assert table["cheetah-lab"].endswith("no: cannot be built: object is no gymnasium.Env")
    assert table["cheetah-run"].endswith("yes")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("JUMP", ["cheetah-jump"]),
        ("mw-door-*ock", ["mw-door-lock", "mw-door-unlock"]),
        ("pointmass-????", ["pointmass-easy", "pointmass-hard"]),
    ],
)
def test_patterns(pattern: str, names: list[str]) -> None:
    assert [info.name for info in find_tasks(pattern)] == names


def test_gymnasium_s_tasks_are_built_to_know_their_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    table = {row.split()[0]: row for row in lines(capsys, "gym:*pendulum-v[15]")[1:]}
    assert table["gym:InvertedPendulum-v5"].split()[2:5] == ["4", "1", "1000"]
    assert table["gym:Pendulum-v1"].split()[2:5] == ["3", "1", "200"]
    [(cartpole, *_)] = [lines(capsys, "gym:CartPole-v1")[1:]]
    assert "unsupported: has actions Discrete" in cartpole


def test_a_missing_simulator_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name == "metaworld" else real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert task_status(find_tasks("mw-reach-wall")[0]).installed == "no: pip install metaworld"
    assert task_status(find_tasks("walker-walk")[0]).installed == "yes"


def test_no_match_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "atari"]) == 2
    assert "no task matches 'atari'" in capsys.readouterr().err
