"""The check of a GPU, dry on the CPU: every part runs, and nothing in it breaks but for the hardware."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from gpu import check, hardware, speed
from gpu.sections import Check, really_compiled

from tdmpc_ray.core.nn import compiled

_CHECK = Path(__file__).parent / "gpu" / "check.py"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(_CHECK), "--device", "cpu", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=580, env={**os.environ, **environment}
    )


def check_of(file: Path) -> Check:
    return Check(torch.device("cpu"), True, False, time.perf_counter() + 60, file)


@pytest.mark.parametrize(
    ("flags", "rows"),
    [
        ((), [5, 4, 3, 5, 1]),
        # With what a GPU would compile, traced.
        pytest.param(("--trace",), [11, 6, 3, 5, 1], marks=pytest.mark.slow),
    ],
)
def test_it_passes_dry(tmp_path: Path, flags: tuple[str, ...], rows: list[int]) -> None:
    done = run("--quick", "--out", str(tmp_path), *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    values = json.loads((tmp_path / "benchmarks_gpu.json").read_text())
    titles = [section["title"] for section in values["sections"]]
    assert titles == ["Exactness", "Speed", "Update loop", "RLlib", "Learning"]
    assert [len(section["rows"]) for section in values["sections"]] == rows
    page = (tmp_path / "benchmarks_gpu.md").read_text()
    assert "Nothing broke." in page
    assert "not reached" not in page
    assert f"torch: {values['hardware']['torch']}" in page
    assert f"| exactness | all equal | {rows[0]} equal, 0 not | holds |" in page
    assert sorted(file.name for file in tmp_path.iterdir()) == ["benchmarks_gpu.json", "benchmarks_gpu.md"]


def test_what_breaks_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")  # without any recorded case
    done = run("--quick", "--out", str(tmp_path), "--parts", "recorded", TDMPC_RAY_FIXTURES=nowhere)
    assert done.returncode == 1
    page = (tmp_path / "benchmarks_gpu.md").read_text()
    assert "| exactness | all equal | 1 equal, 4 not | **does not hold** |" in page
    assert "FileNotFoundError" in page


def test_a_part_that_dies_leaves_what_it_has_found(tmp_path: Path) -> None:
    file = tmp_path / "part.json"
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from gpu.sections import Section\n"
        "Section('Speed', '', ('what',), Path(sys.argv[2])).row('plan')\n"
        "os._exit(3)\n"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parent), str(file)]
    section = check.part_of("speed", 60.0, command, file)
    assert section.rows == [["plan"]]
    assert section.broken == ["the process ended with status 3"]


def test_targets_are_judged() -> None:
    assert speed.verdict("at most 4 ms", 4.0, 250.0, 1.0) == ("4.00 ms", True)
    assert not speed.verdict("at most 3 ms", 3.1, 250.0, 1.0)[1]
    assert speed.verdict("at least 4,000 decisions/s", 60.0, 4000.0, 1.0) == ("4,000 per s", True)
    assert speed.verdict("within 1.5 of the roofline", 3.2, 300.0, 2.0) == ("1.60 of 2.00 ms", False)
    rates = hardware.Rates({"tf32": 400e12}, 4e12, None)
    assert rates.roofline_ms("tf32", 2e12, 1e9) == pytest.approx(5.0)
    assert rates.roofline_ms("tf32", 2e12, 40e9) == pytest.approx(10.0)
    assert check_of(Path()).judged(False) is None


def test_every_row_is_listed_once_and_the_targets_come_first() -> None:
    rows = speed.works(quick=False)
    assert rows[: len(speed.TARGETS)] == list(speed.TARGETS)
    assert len(rows) == len(set(rows)) == 6 * (5 * 2 + 4 * 4)
    warmed = [row for row in rows if row.compiled and not row.is_large]
    assert set(speed.TARGETS) <= set(warmed)


def test_what_runs_uncompiled_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="runs uncompiled"), really_compiled(check_of(tmp_path)):
        logging.getLogger(compiled.__name__).warning("_refine runs uncompiled, and slower")
    with really_compiled(check_of(tmp_path)):
        pass
