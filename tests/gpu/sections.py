"""What a part of the check gives: a table, verdicts, and what broke; and what all parts measure with."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from tdmpc_ray.core.nn import compiled

# Settings of each precision: PyTorch's for float32 products, and the planner's and the update's `dtype`.
PRECISIONS = {"fp32": ("highest", "fp32"), "tf32": ("high", "fp32"), "bf16": ("high", "bf16")}
VERDICTS = {True: ": holds", False: ": does not hold", None: ""}


@dataclass(frozen=True)
class Check:
    """One run of the check.

    Attributes:
        device: where agents plan and learn.
        quick: tiny models and few repetitions, to show that the check runs.
        compiles: compile at all; on a CPU, where it is asked for.
        until: `time.perf_counter()` at which a part has to be done.
        file: where a part leaves its section.
    """

    device: torch.device
    quick: bool
    compiles: bool
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
            half = self.file.with_suffix(".tmp")
            half.write_text(json.dumps(values))
            half.replace(self.file)

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

    first = timed()
    if first > 3 and check.seconds_left < 3 * first:
        return 1000 * first, first
    timed()  # records CUDA graphs
    third = timed()
    if check.quick:
        return 1000 * third, first
    number = min(max(int(min(seconds, check.seconds_left / 2) / third), 1), repeats)
    return 1000 * median([third, *(timed() for _ in range(number))]), first


def host_waits(check: Check, task: Callable[[], object]) -> int | None:
    """Calls of the host that wait for the device, by the profiler; None where that sees no device."""
    if check.device.type != "cuda":
        return None
    before = torch.cuda.get_sync_debug_mode()

    def count(call: Callable[[], object]) -> tuple[int, int]:
        check.synchronize()
        with torch.profiler.profile() as profile:
            call()
        events = [e for e in profile.key_averages() if e.key.startswith("cu")]
        launches = sum(e.count for e in events if "Launch" in e.key)
        return sum(e.count for e in events if e.key.endswith("Synchronize")), launches

    torch.cuda.set_sync_debug_mode("error")  # what PyTorch itself knows to wait, without a profiler
    try:
        task()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return 1
    finally:
        torch.cuda.set_sync_debug_mode(before)
    (waits, launches), (own, _) = count(task), count(lambda: None)  # the profiler waits itself, at its end
    return waits - own if launches else None


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def really_compiled(check: Check) -> Iterator[None]:
    """Fail where a compiled function runs uncompiled, or without CUDA graphs; it is only logged."""
    from torch._dynamo.utils import counters

    handler, logger = _Warnings(), logging.getLogger(compiled.__name__)
    skips = counters["inductor"]["cudagraph_skips"]
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    if handler.lines:
        raise RuntimeError(handler.lines[0])
    if check.device.type == "cuda" and counters["inductor"]["cudagraph_skips"] > skips:
        raise RuntimeError("torch.compile has left out CUDA graphs; TORCH_LOGS=perf_hints says why")
