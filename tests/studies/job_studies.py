"""A study that is submitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def write_study(folder: Path, overrides: dict[str, object], steps: int, **changes: Any) -> Path:
    values = {
        "name": "remote",
        "task": "gym:Pendulum-v1",
        "model_sizes": ["tiny"],
        "steps": steps,
        "set": {**overrides, "data.seed_steps": 100},
        "evaluation": {"every": steps, "episodes": 1},
        "checkpoint": {"every": 200},
        "tracking": {"experiment": "exp"},
        **changes,
    }
    file = folder / "remote.yaml"
    file.write_text(yaml.safe_dump(values))
    return file
