"""The check as one JSON and one Markdown page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from gpu.sections import Section


def write(out: Path, hardware: dict[str, Any], sections: Sequence[Section], command: str) -> Path:
    """Write `benchmarks_gpu.json` and `.md` into a folder; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    values = {
        "date": date.today().isoformat(),
        "command": command,
        "hardware": hardware,
        "sections": [{k: v for k, v in vars(s).items() if k != "file"} for s in sections],
    }
    (out / "benchmarks_gpu.json").write_text(json.dumps(values, indent=1) + "\n")
    page = out / "benchmarks_gpu.md"
    page.write_text("\n\n".join([*head(values, sections), *(part(s) for s in sections)]) + "\n")
    return page


def head(values: dict[str, Any], sections: Sequence[Section]) -> list[str]:
    facts = [f"{name}: {value}" for name, value in values["hardware"].items()]
    verdicts = [verdict for section in sections for verdict in section.verdicts]
    rows = [[name, target, figure, said(holds)] for name, target, figure, holds in verdicts]
    broken = sum(len(section.broken) for section in sections)
    return [
        "# Benchmarks on a GPU",
        f"`{values['command']}` on {values['date']}. {'; '.join(facts)}.",
        table(("target", "asked", "measured", ""), rows),
        "Nothing broke." if not broken else f"What broke ({broken}) stands below.",
    ]


def said(holds: bool | None) -> str:
    return {True: "holds", False: "**does not hold**", None: ""}[holds]


def part(section: Section) -> str:
    pieces = [f"## {section.title}", section.text]
    if section.rows:
        pieces.append(table(section.header, section.rows))
    pieces += [f"Broke: {what.splitlines()[0]}\n\n```\n{what}\n```" for what in section.broken]
    return "\n\n".join(pieces)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
