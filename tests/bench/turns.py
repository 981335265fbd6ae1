"""What benchmarks share: competitors that take turns, and what they ran on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

K = TypeVar("K")
Task = Callable[[], object]


def take_turns(tasks: dict[K, Task], seconds: float) -> dict[K, float]:
    """Median CPU milliseconds of each task, one after the other until the time is up; the first round warms
    up, and counts where it alone took five times as long."""
    times: dict[K, list[float]] = {name: [] for name in tasks}
    rounds, began = 0, time.monotonic()
    while (spent := time.monotonic() - began) < seconds or (rounds < 4 and spent < 5 * seconds):
        for name, task in tasks.items():
            start = time.process_time()
            task()
            times[name].append(1000 * (time.process_time() - start))
        rounds += 1
    return {name: median(values[1:] or values) for name, values in times.items()}


def build_seconds() -> float:
    """Of the kernels, from nothing, in a process of its own."""
    code = "from tdmpc_ray.core.nn.kernels import library; assert library() is not None"
    with tempfile.TemporaryDirectory() as empty:
        began = time.monotonic()
        subprocess.check_call([sys.executable, "-c", code], env={**os.environ, "XDG_CACHE_HOME": empty})
        first = time.monotonic() - began
        began = time.monotonic()
        subprocess.check_call([sys.executable, "-c", code], env={**os.environ, "XDG_CACHE_HOME": empty})
        return first - (time.monotonic() - began)


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()
