"""A study file for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

STUDY = """
name: quick
task: walker-walk
preset: light
model_sizes: [tiny, 1]
seeds: [0, 1, 2]
steps: 6000
set: {planner.num_samples: 64, update.tau: 1e-3}
space:
  update.lr: {loguniform: [1e-4, 1e-3]}
  planner.horizon: {grid: [2, 3, 5]}
num_samples: 2
tracking: {uri: sqlite:///runs.db}
"""


def write(folder: Path, text: str = STUDY, **changes: Any) -> Path:
    values = {**yaml.safe_load(text), **changes}
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not ...}))
    return file
