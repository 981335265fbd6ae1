"""A device that nobody can read: PyTorch's `meta` in the place of a GPU.

Reading a number, comparing with one or indexing by a mask fails there, as it would make the host wait for a
GPU. What `meta` lets pass and a GPU does not, a tensor of the CPU among its own, `DeviceGuard` refuses.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tdmpc_ray.core import batch as core_batch
from tdmpc_ray.core.nn.readback import Readback

META = torch.device("meta")
_FROM_HOST = {"tensor", "as_tensor", "asarray", "from_numpy", "new_tensor"}
_WAITING = {"quantile", "nanquantile"}  # copy their shares to the device


class MetaGenerator(torch.Generator):
    """A generator of the guarded device, which has none."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return META


class _OneDevice(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if len({x.device.type for x in tensors}) > 1:
            raise AssertionError(f"{func} takes a tensor of the CPU beside those of the device")
        return func(*args, **(kwargs or {}))


class _NothingFromHost(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        result = func(*args, **(kwargs or {}))
        if name in _FROM_HOST | _WAITING and result.device == META:
            raise AssertionError(f"{name} waits for the device to take numbers of the host")
        if name == "to" and result.device == META != args[0].device:
            raise AssertionError("a tensor is copied to the device")
        if name in ("__getitem__", "__setitem__") and args[0].device == META and _is_of_host(args[1]):
            raise AssertionError("an index of the host waits for the device to take it")
        return result


def _is_of_host(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, (list, np.ndarray)) for part in parts)


@contextmanager
def device_guard(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Readback]]:
    """Inside, only `Batch.to` and `Readback` copy between host and device; gives the readbacks waited for."""
    waited: list[Readback] = []

    def copy(x: torch.Tensor, device: torch.device) -> torch.Tensor:
        return torch.empty_like(x, device=device)

    def value(self: Readback) -> torch.Tensor:
        waited.append(self)
        return torch.zeros(self._host.shape)

    with monkeypatch.context() as patch, _NothingFromHost(), _OneDevice():
        patch.setattr(core_batch, "_copy", copy)
        patch.setattr(Readback, "value", value)
        yield waited


def allow_optimizers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused Adam and clipping work on this device, too, but PyTorch does not list it."""
    for module in ("adam", "optimizer"):
        owner = importlib.import_module(f"torch.optim.{module}")
        names = "_get_fused_kernels_supported_devices"
        monkeypatch.setattr(owner, names, lambda: ["cuda", "cpu", "meta"], raising=False)
    clip_grad = importlib.import_module("torch.nn.utils.clip_grad")
    monkeypatch.setattr(clip_grad, "_device_has_foreach_support", lambda device: True)
