"""Files that are no study files, or too much of one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from study_files import STUDY, write

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.load import load_study, make_study

HUGE = 10**5000  # Python refuses to write it


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": HUGE}, "steps: must lie within ±9223372036854775807, not a number of about 5,000 digits"),
        ({"steps": -HUGE}, "steps: must lie within ±9223372036854775807, not a number of about 5,000 digits"),
        ({"steps": 2**63}, "steps: must lie within ±9223372036854775807, not 9223372036854775808"),
        ({"steps": "9223372036854775808"}, "steps: must be a whole number, not 9.22"),
        ({"max_failures": 2**63}, "max_failures: must lie within"),
        ({"seeds": [0, HUGE]}, "seeds.1: must lie within"),
        ({"model_sizes": [HUGE]}, "model_sizes.0: must lie within"),
        ({"name": HUGE}, "name: must lie within"),
        ({"set": {"update.batch_size": 10**400}}, "set.update.batch_size: must lie within"),
        ({"set": {"update.batch_size": "9" * 400}}, "update.batch_size='9999"),
        ({"set": {"data.capacity": "1e30"}}, "data.capacity='1e30' is not a valid value: expected int"),
        ({"set": {HUGE: 1}}, "set: a key must be a word"),
        ({"space": {"update.lr": {"uniform": [0, HUGE]}}}, "space.update.lr.uniform.1: must lie within"),
        (
            {"space": {"update.lr": {HUGE: [0, 1]}}},
            "space.update.lr: unknown distribution 'a number of about",
        ),
        (
            {"space": {"planner.horizon": {"randint": [1, "9" * 400]}}},
            "space.planner.horizon: randint needs ",
        ),
        ({"stop": {"score": HUGE}}, "stop.score: must lie within"),
        ({"search": {"method": "optuna", "options": {"seed": HUGE}}}, "search.options.seed: must lie within"),
        ({"name": "n" * 251}, "name: must have 250 characters at most, not 251"),
        ({"name": "n" * 3_000_000}, "name: must have 10,000 characters at most, not 3,000,000"),
        ({"tracking": {"experiment": "x" * 251}}, "tracking.experiment: must have 250 characters at most"),
        ({"tracking": {"uri": "x" * 10_001}}, "tracking.uri: must have 10,000 characters at most"),
    ],
    ids=range(21),
)
def test_nothing_huge_is_taken(changes: dict[Any, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_study({**yaml.safe_load(STUDY), **changes})
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 250


def test_a_number_that_python_does_not_read(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.write_text(file.read_text().replace("steps: 6000", f"steps: {'9' * 5000}"))
    assert refused(file) == f"{file}: a number in it has more than 4,300 digits"


def test_aliases_that_stand_for_too_much(tmp_path: Path) -> None:
    lines = ["name: a", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    file = tmp_path / "study.yaml"
    file.write_text("\n".join(lines))
    assert refused(file) == f"{file}: its aliases (*name) stand for more than 100,000 values"
    file.write_text("name: a\nset: &s {x: *s}\n")
    assert len(refused(file)) < 1000


def test_special_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # which nobody writes to
    for path in (Path("/dev/zero"), tmp_path / "pipe"):
        assert refused(path) == f"cannot read {path}: it is a device, a pipe or a socket, not a file"
    assert refused(tmp_path) == f"cannot read {tmp_path}: Is a directory"


def test_a_shells_own_pipe_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, STUDY.encode())
    os.close(writer)
    assert load_study(f"/dev/fd/{reader}").name == "quick"
    os.close(reader)


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_study(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nseeds: [0\n", "line 2: the list that begins here lacks its ']' or a comma"),
        ("set: {update.lr: 1\n", "line 1: what begins here with '{' lacks its '}' or a comma"),
        ("name: a: b\n", "line 1, column 8: a ':' that belongs to no key"),
        ("name:\n\ta\n", "line 2, column 1: a tab; indent by spaces"),
        ("name: [", "line 1, column 8: a list, a '{' or a quote is not closed"),
        ("name: &\n", "line 1, column 8: expected alphabetic or numeric character"),
        ("- a\n- b\n", "must hold 'key: value' lines"),
        ("name: a\nname: b\n", "line 2, column 1: 'name' is there twice"),
        ("task: 2021-13-45\n", "month must be in 1..12"),
        ("[" * 5000, "its lists and mappings are nested too deeply"),
        ("? [1, 2]\n: 3\n", "line 1, column 3: a key must be a word"),
    ],
)
def test_what_is_no_study_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=str(file)) as caught:
        load_study(file)
    assert message in str(caught.value)
    with pytest.raises(UserError, match=r"cannot read .*absent\.yaml: No such file"):
        load_study(tmp_path / "absent.yaml")
