"""Numbers from the device, read without holding up what comes after them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


class Fence:
    """What has been launched on a device so far; a CPU has done it."""

    def __init__(self, device: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(blocking=True)  # otherwise whoever waits keeps a core busy
            self._event.record(torch.cuda.current_stream(device))

    def wait(self) -> None:
        """Return when it is done."""
        if self._event is not None:
            self._event.synchronize()


class Readback:
    """A copy of a tensor on its way to the host.

    On a GPU it goes into pinned memory before a fence, so that `value` waits for what was launched before
    the copy alone, and not at all where that is done.

    Args:
        x: may be overwritten by whatever is launched later.
    """

    def __init__(self, x: Tensor) -> None:
        if x.device.type == "cuda":
            self._host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
            self._host.copy_(x.detach(), non_blocking=True)
        else:
            self._host = x.detach().clone()
        self._fence = Fence(x.device)

    def value(self) -> Tensor:
        """The copy, on the CPU."""
        self._fence.wait()
        return self._host


def read_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Tensors of one device as arrays: views on a CPU; from a GPU by one copy of all of a type.

    Args:
        tensors: by name.
    """
    if not any(x.device.type == "cuda" for x in tensors.values()):
        return {name: x.detach().numpy() for name, x in tensors.items()}
    return copy_arrays(tensors)


def copy_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Through one flat copy for each type; the arrays share its memory."""
    names: defaultdict[torch.dtype, list[str]] = defaultdict(list)
    for name, x in tensors.items():
        names[x.dtype].append(name)
    copies = [Readback(torch.cat([tensors[name].flatten() for name in group])) for group in names.values()]
    arrays: dict[str, np.ndarray] = {}
    for group, copied in zip(names.values(), copies, strict=True):
        parts = copied.value().split([tensors[name].numel() for name in group])
        arrays |= {name: x.view(tensors[name].shape).numpy() for name, x in zip(group, parts, strict=True)}
    return {name: arrays[name] for name in tensors}
