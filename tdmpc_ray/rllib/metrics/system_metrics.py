"""What a trial's node does beside learning: processors, memory, GPUs and their energy, on request."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import psutil
import ray

GIB = 2**30


class SystemMetrics:
    """Reads the node of a trial's main process; GPUs are those that Ray has given to it.

    Runners and learners on other nodes are not seen. Energy is counted from this object's construction, and
    goes on from `energy_wh` after a restart.

    Attributes:
        energy_wh: of the GPUs so far, in watt hours.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        psutil.cpu_percent()  # the first value is of no period
        self._gpus = _gpus()
        self.energy_wh = 0.0
        self._joules = _joules(self._gpus)

    def read(self) -> dict[str, float]:
        """Metrics by MLflow's names: percent since the last call, GiB, watts, watt hours."""
        memory = psutil.virtual_memory()
        found = {
            "system/cpu_percent": psutil.cpu_percent(),
            "system/memory_percent": memory.percent,
            "system/memory_gib": (memory.total - memory.available) / GIB,
            "system/main_process_gib": self._process.memory_info().rss / GIB,
        }
        for number, gpu in enumerate(self._gpus):
            found |= {f"system/gpu_{number}_{name}": value for name, value in _read_gpu(gpu).items()}
        if self._joules is not None and (now := _joules(self._gpus)) is not None:
            self.energy_wh += (now - self._joules) / 3600
            self._joules = now
            found["system/gpu_energy_wh"] = self.energy_wh
        return found


def _gpus() -> list[Any]:
    """Handles of NVIDIA's library; none where there is no driver or Ray gave none."""
    import pynvml

    given = [str(gpu) for gpu in ray.get_gpu_ids()]
    if not given:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    handles = []
    for gpu in given:
        with contextlib.suppress(pynvml.NVMLError):
            by_number = gpu.isdigit()
            handles.append(
                pynvml.nvmlDeviceGetHandleByIndex(int(gpu))
                if by_number
                else pynvml.nvmlDeviceGetHandleByUUID(gpu)
            )
    return handles


def _read_gpu(gpu: Any) -> dict[str, float]:
    """What this GPU tells; virtual and older ones do not know all."""
    import pynvml

    found: dict[str, float] = {}
    with contextlib.suppress(pynvml.NVMLError):
        found["percent"] = float(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu)
    with contextlib.suppress(pynvml.NVMLError):
        found["memory_gib"] = pynvml.nvmlDeviceGetMemoryInfo(gpu).used / GIB
    with contextlib.suppress(pynvml.NVMLError):
        found["watts"] = pynvml.nvmlDeviceGetPowerUsage(gpu) / 1e3
    return found


def _joules(gpus: Sequence[Any]) -> float | None:
    """Of all GPUs since their driver was loaded; None where one does not count, or there are none."""
    import pynvml

    try:
        total = sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) for gpu in gpus)
    except pynvml.NVMLError:
        return None
    return total / 1e3 if gpus else None
