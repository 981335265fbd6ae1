"""torch.compile where it pays: on GPUs, where kernels are fused and replayed as CUDA graphs.

On the CPU `kernels.c` is faster, and needs a second to build instead of minutes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import torch

from tdmpc_ray.core.threads import limit_compilers

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
    """A function, compiled at its first call with inputs of new shapes, its backward pass too.

    Where that fails, as it does without a compiler on the machine, it says so once and runs uncompiled.

    Args:
        function: of tensors; without side effects.
        options: of torch.compile, in the place of CUDA graphs.
    """

    def __init__(self, function: Callable[P, T], **options: Any) -> None:
        limit_compilers()
        self._function, self._name = function, function.__name__
        # Numbers of environments, settings and shapes; beyond the limit a call is an error.
        limit: dict[str, Any] = {"recompile_limit": 64, "isolate_recompiles": True}
        options = options or {"mode": "reduce-overhead"}
        self._run: Callable[P, T] = torch.compile(function, fullgraph=True, dynamic=False, **limit, **options)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._run is self._function:
            return self._function(*args, **kwargs)
        # Imported here: it takes seconds, and most processes never compile.
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
        from torch._functorch import config

        try:
            # By default the backward pass is compiled when it runs, where nothing can take its place.
            with config.patch(force_non_lazy_backward_lowering=True):
                return self._run(*args, **kwargs)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            reason = " ".join(str(error).split("\n")[:2])  # what failed, and why
            logger.warning("%s runs uncompiled, and slower: torch.compile says: %s", self._name, reason)
            self._run = self._function
            return self._function(*args, **kwargs)
