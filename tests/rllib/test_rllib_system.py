"""System metrics: what a node does, read on request; GPUs by a stand-in for NVIDIA's library."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import ray

from tdmpc_ray.rllib.metrics.report import Reporter
from tdmpc_ray.rllib.metrics.system_metrics import SystemMetrics


def read(reporter: Reporter) -> dict[str, float]:
    counters = {"env_steps": 10, "env_frames": 20, "grad_updates": 5}
    return reporter.report({}, {}, counters, new_steps=10, new_updates=0)


def test_they_are_reported_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get_gpu_ids", list)
    assert not any(name.startswith("system/") for name in read(Reporter(100, 1000)))
    report = read(Reporter(100, 1000, SystemMetrics()))
    assert 0 <= report["system/cpu_percent"] <= 100
    assert 0 < report["system/memory_percent"] <= 100
    assert 0.01 < report["system/main_process_gib"] < report["system/memory_gib"]
    assert not any(name.startswith("system/gpu") for name in report)


def test_gpus_and_their_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    millijoules = {"a": 1_000_000, "GPU-b": 5_000_000}
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: [3, "GPU-b"])

    def refuse(gpu: str) -> Any:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    for name, stand_in in {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByIndex": lambda index: {3: "a"}[index],
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(gpu=75),
        "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(used=3 * 2**30),
        "nvmlDeviceGetPowerUsage": refuse,
        "nvmlDeviceGetTotalEnergyConsumption": millijoules.get,
    }.items():
        monkeypatch.setattr(pynvml, name, stand_in)
    reporter = Reporter(100, 1000, SystemMetrics())
    assert read(reporter)["system/gpu_energy_wh"] == 0.0
    millijoules["a"] += 3_600_000
    millijoules["GPU-b"] += 7_200_000
    report = read(reporter)
    assert (report["system/gpu_0_percent"], report["system/gpu_1_memory_gib"]) == (75.0, 3.0)
    assert "system/gpu_0_watts" not in report
    assert report["system/gpu_energy_wh"] == pytest.approx(3.0)
    again = Reporter(100, 1000, SystemMetrics())
    again.restore(reporter.state())
    millijoules["a"] += 3_600_000
    assert read(again)["system/gpu_energy_wh"] == pytest.approx(4.0)
