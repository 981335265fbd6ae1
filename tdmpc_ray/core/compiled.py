"""torch.compile where it pays: on GPUs, where kernels are fused and replayed as CUDA graphs.

On the CPU `kernels.c` is faster, and needs a second to build instead of minutes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

import torch
from torch._dynamo.exc import TorchDynamoException

logger = logging.getLogger(__name__)

COMPILE = ("auto", "always", "never")  # not on and off, which YAML reads as booleans

P = ParamSpec("P")
T = TypeVar("T")


def compiles(setting: str, device: torch.device) -> bool:
    """Whether a setting of COMPILE means to compile on a device: `auto` does so on GPUs."""
    return setting == "always" or (setting == "auto" and device.type == "cuda")


def begin_step(device: torch.device) -> None:
    """What compiled functions gave out before this may be overwritten from now on."""
    if device.type == "cuda":
        torch.compiler.cudagraph_mark_step_begin()


class Compiled(Generic[P, T]):
    """A function, compiled at its first call, once for all shapes of its inputs that occur.

    Where that fails, as it does without a compiler on the machine, it says so once and runs uncompiled.

    Args:
        function: of tensors; without side effects.
        backend: of torch.compile.
    """

    def __init__(self, function: Callable[P, T], backend: str = "inductor") -> None:
        mode = "reduce-overhead" if backend == "inductor" else None
        self._function, self._name = function, function.__name__
        self._run: Callable[P, T] = torch.compile(
            function, fullgraph=True, dynamic=False, backend=backend, mode=mode
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return self._run(*args, **kwargs)
        except TorchDynamoException as error:
            if self._run is self._function:
                raise
            reason = " ".join(str(error).split("\n")[:2])  # what failed, and why
            logger.warning("%s runs uncompiled, and slower: torch.compile says: %s", self._name, reason)
            self._run = self._function
            return self._function(*args, **kwargs)
