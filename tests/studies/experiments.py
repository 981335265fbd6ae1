"""The studies that are shipped."""

from __future__ import annotations

from pathlib import Path

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
