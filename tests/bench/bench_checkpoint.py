"""Seconds and bytes of checkpoints of a large replay: `python tests/bench/bench_checkpoint.py [FOLDER]`.

A walker's replay of a million transitions; checkpoints every 5,000 steps, as studies take them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pyarrow.fs import LocalFileSystem

from tdmpc_ray.core.replay.prioritized import PrioritizedReplay
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.datasets.chunk_store import ChunkStore
from tdmpc_ray.rllib.checkpoints.saved_replay import SavedReplay

STEPS, EPISODE, EVERY = 1_000_000, 500, 5000
SHAPE = ((24,), 6, 3)  # observation, action, horizon


def add_steps(replay: SequenceReplay, steps: int, rng: np.random.Generator) -> None:
    for start in range(0, steps, EPISODE):
        obs, action = rng.normal(size=(EPISODE + 1, *SHAPE[0])), rng.normal(size=(EPISODE, SHAPE[1]))
        name = str(replay.transitions_added + start)
        replay.add(name, 0, obs, action, np.zeros(EPISODE), terminated=False, done=True)


def size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 2**20


def measure(name: str, replay: SequenceReplay, folder: Path) -> None:
    rng, store = np.random.default_rng(0), ChunkStore(LocalFileSystem(), str(folder))
    add_steps(replay, STEPS, rng)
    saved, before = SavedReplay(replay), 0.0
    for what in ("the first", "after 5,000 steps", "after 5,000 more"):
        started = time.perf_counter()
        manifest = saved.save(store, {})
        seconds, now = time.perf_counter() - started, size(folder)
        print(f"{name:12} {what:18} {seconds:6.2f} s  {now - before:7.1f} MiB written", flush=True)
        before = now
        add_steps(replay, EVERY, rng)
    started = time.perf_counter()
    SavedReplay(replay).load(store, manifest)
    print(f"{name:12} {'restored':18} {time.perf_counter() - started:6.2f} s")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as base:
        for kind in ("uniform", "prioritized"):
            folder = Path(base, kind)
            folder.mkdir()
            replay = (
                SequenceReplay(STEPS, *SHAPE)
                if kind == "uniform"
                else PrioritizedReplay(STEPS, *SHAPE, alpha=0.6, beta=0.4, new="max")
            )
            measure(kind, replay, folder)
