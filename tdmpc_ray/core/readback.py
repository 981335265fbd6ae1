"""Numbers from the device, read without holding up what comes after them."""

from __future__ import annotations

import torch
from torch import Tensor


class Readback:
    """A copy of a tensor on its way to the host.

    On a GPU it goes into pinned memory behind an event, so that `value` waits for what was launched before
    the copy alone, and not at all where that is done.

    Args:
        x: may be overwritten by whatever is launched later.
    """

    def __init__(self, x: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if x.device.type != "cuda":
            self._host = x.detach().clone()
            return
        self._host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
        self._host.copy_(x.detach(), non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record(torch.cuda.current_stream(x.device))

    def value(self) -> Tensor:
        """The copy, on the CPU."""
        if self._event is not None:
            self._event.synchronize()
        return self._host
