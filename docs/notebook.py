"""Write docs/python.ipynb from docs/python.md: its Python as cells of code, the rest as text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("python.md")
FILE = Path(__file__).with_name("python.ipynb")
_CODE = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def notebook(page: str) -> dict[str, Any]:
    """A page as a notebook of nbformat 4.5, without outputs."""
    cells: list[dict[str, Any]] = []
    for number, part in enumerate(_CODE.split(page)):  # text and code in turns
        if not part.strip():
            continue
        kind, outputs = ("code", {"outputs": []}) if number % 2 else ("markdown", {})
        run = {"execution_count": None} if number % 2 else {}
        lines = part.strip().splitlines(keepends=True)
        own = {"id": f"cell-{len(cells)}", "metadata": {}}
        cells.append({"cell_type": kind, **run, **own, **outputs, "source": lines})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def text(page: str) -> str:
    """The file that holds it."""
    return json.dumps(notebook(page), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
