"""A command line for tests."""

from __future__ import annotations

TRAIN = ["train", "--task", "walker-walk", "--steps", "10"]
