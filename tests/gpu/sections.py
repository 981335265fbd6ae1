"""What a part of the check gives: a table, verdicts, and what broke; and what all parts measure with."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

# Settings of each precision: PyTorch's for float32 products, and the planner's and the update's `dtype`.
PRECISIONS = {"fp32": ("highest", "fp32"), "tf32": ("high", "fp32"), "bf16": ("high", "bf16")}
VERDICTS = {True: ": holds", False: ": does not hold", None: ""}


@dataclass(frozen=True)
class Check:
    """One run of the check.

    Attributes:
        device: where agents plan and learn.
        quick: tiny models and few repetitions, to show that the check runs.
        until: `time.perf_counter()` at which a part has to be done.
        file: where a part leaves its section.
    """

    device: torch.device
    quick: bool
    until: float
    file: Path

    @property
    def seconds_left(self) -> float:
        return self.until - time.perf_counter()

    def judged(self, holds: bool) -> bool | None:
        """A verdict on a figure; none where figures mean nothing."""
        return None if self.quick else holds

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass
class Section:
    """A part's page; on disk after every row, so that what is there outlives whatever comes next.

    Attributes:
        rows: of the table under `header`.
        verdicts: name, target, figure, and whether it holds; None: it says nothing here.
        broken: what failed, with tracebacks.
    """

    title: str
    text: str
    header: Sequence[str] = ()
    file: Path | None = None
    rows: list[list[str]] = field(default_factory=list)
    verdicts: list[tuple[str, str, str, bool | None]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def row(self, *cells: object) -> None:
        self.rows.append([str(cell) for cell in cells])
        print("  " + "".join(f"{cell!s:>15}" for cell in cells), flush=True)
        self.save()

    def verdict(self, name: str, target: str, figure: str, holds: bool | None) -> None:
        self.verdicts.append((name, target, figure, holds))
        print(f"  {name}: {figure} ({target}){VERDICTS[holds]}", flush=True)
        self.save()

    def broke(self, what: str, trace: str) -> None:
        self.broken.append(f"{what}: {trace.strip()}")
        print(f"  BROKE: {what}\n{trace}", flush=True)
        self.save()

    def save(self) -> None:
        if self.file is not None:
            values = {k: v for k, v in dataclasses.asdict(self).items() if k != "file"}
            self.file.write_text(json.dumps(values))

    @classmethod
    def load(cls, file: Path) -> Section:
        return cls(**json.loads(file.read_text()))


@contextmanager
def precision(name: str) -> Any:
    """Run float32 products as one of PRECISIONS does, and convolutions likewise."""
    before, before_cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(PRECISIONS[name][0])
    torch.backends.cudnn.allow_tf32 = name != "fp32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = before_cudnn


def milliseconds(
    check: Check, task: Callable[[], object], seconds: float = 1.0, repeats: int = 50
) -> tuple[float, float]:
    """Median time of a call until the device is done, and the seconds of the first one, which compiles."""

    def timed() -> float:
        began = time.perf_counter()
        task()
        check.synchronize()
        return time.perf_counter() - began

    first, second = timed(), timed()
    if check.quick:
        return 1000 * second, first
    number = min(max(int(seconds / second), 3), repeats)
    timed()  # the second call records CUDA graphs
    return 1000 * median(timed() for _ in range(number)), first


def host_waits(check: Check, task: Callable[[], object]) -> int | None:
    """Calls of the host that wait for the device, by the profiler; None on a CPU."""
    if check.device.type != "cuda":
        return None

    def count(call: Callable[[], object]) -> int:
        check.synchronize()
        with torch.profiler.profile() as profile:
            call()
        events = profile.key_averages()
        return sum(e.count for e in events if e.key.startswith("cuda") and e.key.endswith("Synchronize"))

    return count(task) - count(lambda: None)  # the profiler waits itself, at its end
