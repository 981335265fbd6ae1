"""How fast batches come out of a dataset, and what a large one takes.

    python tests/bench/bench_dataset.py [--rows 100_000_000] [--folder /tmp/dataset]

Synthetic episodes of 500 steps, walker-sized (24 numbers, 6 actions), of two tasks. Prints the time to write,
to open and to draw batches of 1,024 sequences, and the memory that the process has touched; with --updates,
what a run of so many updates at size 1 takes, its evaluation included, and how much of an update is the draw.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tdmpc_ray.datasets.dataset import Dataset, DatasetReplay
from tdmpc_ray.datasets.episode import Episode
from tdmpc_ray.datasets.manifest import Source
from tdmpc_ray.datasets.writer import writing

TASKS = ("walker-walk", "walker-run")
STEPS, OBS, ACTION = 500, 24, 6


def write(folder: Path, rows: int, half: bool) -> None:
    """Random walks, so that they are not all alike."""
    rng = np.random.default_rng(0)
    block = rng.standard_normal((64, STEPS + 1, OBS)).astype(np.float32)
    actions = rng.uniform(-1, 1, (64, STEPS, ACTION)).astype(np.float32)
    rewards = rng.uniform(0, 1, (64, STEPS)).astype(np.float32)
    with writing(folder, half=half) as writer:
        source = writer.begin(Source(kind="episodes", place="synthetic"))
        for number in range(rows // (STEPS + 1)):
            at = number % 64
            one = Episode(f"episode {number}", block[at] + np.float32(number % 7), actions[at], rewards[at])
            writer.add(one, source, TASKS[number % 2])


def resident_mib() -> float:
    """Of this process, files that are mapped left out."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def train(folder: Path, updates: int, replay: DatasetReplay) -> None:
    """In this process, so that its memory is the run's."""
    from tdmpc_ray.rllib import TDMPC2Config

    config = TDMPC2Config().environment("+".join(TASKS)).offline_data(input_=folder)
    config.training(model_size="1", total_steps=updates, eval_every=updates, steps_per_iteration=updates)
    config.training(max_time_s_per_iteration=3600).evaluation(evaluation_duration=1)
    algo = config.debugging(log_level="ERROR").build_algo()
    report, rng, times = algo.train()["report"], np.random.default_rng(1), []
    algo.stop()
    for _ in range(100):
        began = time.perf_counter()
        replay.sample(config.agent().update.batch_size, rng)
        times.append(time.perf_counter() - began)
    draw, update = 1e3 * np.median(times), report["perf/update_ms"]
    print(
        f"{updates} updates and an evaluation (score {report['eval/score']:.1f}): {update:.1f} ms per update,"
    )
    print(f"of which the draw is {draw:.2f} ms, {draw / update:.1%}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"memory of its own {resident_mib():.0f} MiB, with what is mapped at most {peak:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--updates", type=int, default=0)
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp()) / "data"
    if not folder.exists():
        began = time.perf_counter()
        write(folder, args.rows, args.half)
        print(f"written in {time.perf_counter() - began:.1f} s")
    began = time.perf_counter()
    dataset = Dataset(folder)
    replay = DatasetReplay(dataset, TASKS, (OBS,), ACTION, 3, is_set=True)
    rng = np.random.default_rng(0)
    replay.sample(1024, rng)
    print(
        f"{dataset.manifest.rows:,} rows, {dataset.bytes / 1e9:.2f} GB, {len(dataset.manifest.parts)} chunks"
    )
    print(f"opened, with a first batch, in {time.perf_counter() - began:.2f} s")
    times = []
    for _ in range(100):
        began = time.perf_counter()
        replay.sample(1024, rng)
        times.append(time.perf_counter() - began)
    median, most = 1e3 * np.median(times), 1e3 * max(times)
    print(f"a batch of 1,024 sequences: {median:.1f} ms (median), {most:.1f} at most")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"memory of its own {resident_mib():.0f} MiB, with what is mapped at most {peak:.0f} MiB")
    if args.updates:
        dataset.unmap_pages()
        train(folder, args.updates, replay)
    if args.folder is None:
        shutil.rmtree(folder.parent)


if __name__ == "__main__":
    main()
