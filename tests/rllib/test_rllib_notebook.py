"""docs/python.ipynb is what docs/python.md says, and runs from its first cell to its last."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tdmpc_ray.studies.models.best_checkpoint import best_checkpoint

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebook", DOCS / "notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_is_the_page(maker: ModuleType) -> None:
    page = maker.PAGE.read_text()
    assert maker.FILE.read_text() == maker.text(page), "write it with: python docs/notebook.py"
    cells = json.loads(maker.FILE.read_text())["cells"]
    assert "".join(cells[0]["source"]).startswith("# From Python or a notebook\n")
    assert sum(cell["cell_type"] == "code" for cell in cells) == page.count("```python\n")
    for cell in cells:
        needed = {"id", "cell_type", "metadata", "source"}
        needed |= {"outputs", "execution_count"} if cell["cell_type"] == "code" else set()
        assert set(cell) == needed
        assert not cell.get("outputs")
    assert len({cell["id"] for cell in cells}) == len(cells)


def test_quiet_is_not_undone_by_importing_ray() -> None:
    code = (
        "import tdmpc_ray; tdmpc_ray.quiet(); import logging, ray; "
        "print(logging.getLogger('ray.rllib').isEnabledFor(logging.WARNING))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


@pytest.mark.usefixtures("local_ray")
def test_the_notebook_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one process, as a kernel does it; `__main__` is where a notebook's classes are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in json.loads((DOCS / "python.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert names["result"]["env_steps"] == 200
    assert names["total"] < 0
    assert names["results"].num_errors == 0
    assert names["best"].metrics["env_steps"] == 80
    trained, best = tmp_path / "notebook-tune", names["best"]
    assert best_checkpoint(trained).score == best.metrics["latest"]["eval/return"], "register's choice"
    printed = capsys.readouterr()
    assert "WARNING" not in printed.err + printed.out
    assert "200 steps," in printed.out
