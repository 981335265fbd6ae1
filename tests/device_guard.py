"""A device that nobody can read: PyTorch's `meta` in the place of a GPU.

Reading a number, comparing with one or indexing by a mask fails there, as it would make the host wait for a
GPU. What `meta` lets pass and a GPU does not, a tensor of the CPU among its own, `DeviceGuard` refuses.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tdmpc_ray.core import batch as core_batch
from tdmpc_ray.core.readback import Readback

META = torch.device("meta")
_FROM_HOST = {torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy}


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
        result = func(*args, **(kwargs or {}))
        if func in _FROM_HOST and result.device == META:
            raise AssertionError(f"{func.__name__} waits for the device to take numbers of the host")
        if getattr(func, "__name__", "") == "to" and result.device == META != args[0].device:
            raise AssertionError("a tensor is copied to the device")
        return result


@contextmanager
def device_guard(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, only the copies of `Batch.to` and `Readback` cross between host and device."""

    def copy(x: torch.Tensor, device: torch.device) -> torch.Tensor:
        return torch.empty(x.shape, dtype=x.dtype, device=device)

    def value(self: Readback) -> torch.Tensor:
        return torch.zeros(self._host.shape)

    with monkeypatch.context() as patch, _NothingFromHost(), _OneDevice():
        patch.setattr(core_batch, "_copy", copy)
        patch.setattr(Readback, "value", value)
        yield


def allow_optimizers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused Adam and clipping work on this device, too, but PyTorch does not list it."""
    for module in ("adam", "optimizer"):
        owner = importlib.import_module(f"torch.optim.{module}")
        names = "_get_fused_kernels_supported_devices"
        monkeypatch.setattr(owner, names, lambda: ["cuda", "cpu", "meta"], raising=False)
    clip_grad = importlib.import_module("torch.nn.utils.clip_grad")
    monkeypatch.setattr(clip_grad, "_device_has_foreach_support", lambda device: True)
