"""What the machine is, and the rates that it reaches at best."""

from __future__ import annotations

import os
import platform
import re
import shutil
from dataclasses import dataclass
from typing import Any

import torch
from gpu.sections import PRECISIONS, Check, milliseconds, precision

from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel

# Dense peaks in TFLOP/s by the makers' data sheets: fp32, TF32, bf16.
PEAKS = {
    "H200": (67, 494.5, 989),
    "H100 PCIe": (51, 378, 756),
    "H100": (67, 494.5, 989),
    "A100": (19.5, 156, 312),
    "L40S": (91.6, 183, 362),
    "L4": (30.3, 60, 121),
    "RTX 4090": (82.6, 82.6, 165.2),
    "RTX 3090": (35.6, 35.6, 71),
}


def describe(device: torch.device) -> dict[str, Any]:
    """Hardware and versions."""
    import numpy

    facts = {
        "gpu": "none",
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "numpy": numpy.__version__,
        "C compiler": shutil.which("cc") or shutil.which("gcc") or "none: nothing can be compiled",
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts["gpu"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return facts


def processor() -> str:
    """Its name, as Linux has it."""
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()


def data_sheet(device: torch.device) -> dict[str, float] | None:
    """FLOP/s of each precision; None: this GPU is not listed."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    peaks = next((peaks for key, peaks in PEAKS.items() if re.search(rf"\b{key}\b", name)), None)
    return None if peaks is None else {p: 1e12 * x for p, x in zip(PRECISIONS, peaks, strict=True)}


def product_rate(check: Check, name: str, size: int = 8192) -> float:
    """FLOP/s of one large product in a precision."""
    size = 256 if check.quick else size
    dtype = torch.bfloat16 if name == "bf16" else torch.float32
    a = torch.randn(size, size, device=check.device, dtype=dtype)
    with precision(name):
        ms, _ = milliseconds(check, lambda: a @ a, repeats=20)
    return 2 * size**3 / ms * 1e3


def copy_rate(check: Check) -> float:
    """Bytes per second that memory reads and writes."""
    x = torch.empty(1_000_000 if check.quick else 1 << 28, device=check.device)
    y = torch.empty_like(x)
    ms, _ = milliseconds(check, lambda: y.copy_(x), repeats=20)
    return 2 * x.nbytes / ms * 1e3


def update_bytes(model: WorldModel) -> int:
    """What an update moves for each parameter at least, activations not counted.

    The forward and the backward pass read it, and the latter writes its gradient; the norm reads that,
    clipping reads and writes it; Adam reads gradient, parameter and two moments and writes three of them: 13.
    A target head is read by the forward pass, and read and written with its online head in the Polyak
    average: 4.
    """
    online = sum(p.numel() for p in model.parameters() if p.requires_grad)
    target = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    return 4 * (13 * online + 4 * target)


@dataclass(frozen=True)
class Rates:
    """The best of this machine, measured, and the data sheet's.

    Attributes:
        product: FLOP/s of one large product, by precision.
        copy: bytes per second.
        sheet: FLOP/s by precision; None: this GPU is not listed.
    """

    product: dict[str, float]
    copy: float
    sheet: dict[str, float] | None

    @classmethod
    def measure(cls, check: Check) -> Rates:
        products = {name: product_rate(check, name) for name in PRECISIONS}
        return cls(products, copy_rate(check), data_sheet(check.device))

    def peak(self, name: str) -> float:
        """FLOP/s that shares are of."""
        return (self.sheet or self.product)[name]

    def roofline_ms(self, name: str, flops: float, nbytes: float) -> float:
        """The least that products and memory allow."""
        return 1e3 * max(flops / self.product[name], nbytes / self.copy)

    def __str__(self) -> str:
        products = ", ".join(f"{name} {rate / 1e12:.1f} TFLOP/s" for name, rate in self.product.items())
        return f"One large product: {products}; memory: {self.copy / 1e12:.2f} TB/s."
