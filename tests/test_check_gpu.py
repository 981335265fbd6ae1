"""The check of a GPU, dry on the CPU: every part runs, and nothing in it breaks but for the hardware."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from gpu.sections import Check, Section

_CHECK = Path(__file__).parent / "gpu" / "check.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(_CHECK), "--device", "cpu", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, env={**os.environ})


def test_it_passes_dry(tmp_path: Path) -> None:
    done = run("--quick", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    values = json.loads((tmp_path / "benchmarks_gpu.json").read_text())
    titles = [section["title"] for section in values["sections"]]
    assert titles == ["Exactness", "Speed", "Update loop", "RLlib", "Learning"]
    assert [len(section["rows"]) for section in values["sections"]] == [6, 4, 3, 5, 1]
    page = (tmp_path / "benchmarks_gpu.md").read_text()
    assert "Nothing broke." in page
    assert f"torch: {values['hardware']['torch']}" in page
    assert "| exactness | all equal | 6 equal, 0 not | holds |" in page


def test_what_breaks_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    os.environ["TDMPC_RAY_FIXTURES"] = str(tmp_path)  # without any recorded case
    try:
        done = run("--quick", "--out", str(tmp_path), "--parts", "recorded")
    finally:
        del os.environ["TDMPC_RAY_FIXTURES"]
    assert done.returncode == 1
    page = (tmp_path / "benchmarks_gpu.md").read_text()
    assert "| exactness | all equal | 2 equal, 4 not | **does not hold** |" in page
    assert "FileNotFoundError" in page


def test_a_section_outlives_its_process(tmp_path: Path) -> None:
    file = tmp_path / "section.json"
    section = Section("Speed", "text", ("what",), file)
    section.row("plan")
    section.verdict("1 environment", "at most 4 ms", "3.00 ms", True)
    loaded = Section.load(file)
    assert (loaded.rows, loaded.verdicts) == (
        [["plan"]],
        [["1 environment", "at most 4 ms", "3.00 ms", True]],
    )
    assert Check(torch.device("cpu"), True, 0.0, file).judged(False) is None
