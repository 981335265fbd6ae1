"""torch.compile where it pays: on GPUs, where kernels are fused and replayed as CUDA graphs.

On the CPU `kernels.c` is faster, and needs a second to build instead of minutes.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, ParamSpec, TypeVar

import torch

from tdmpc_ray.core.nn.threads import limit_compilers

logger = logging.getLogger(__name__)

# Numbers of environments, settings and shapes; beyond the limit a call is an error.
_RECOMPILE_LIMIT = 64
_OPTIONS = {"mode": "reduce-overhead"}  # kernels as one CUDA graph

P = ParamSpec("P")
T = TypeVar("T")


def compiles(setting: str, device: torch.device) -> bool:
    """Whether a setting of `config.COMPILE` means to compile on a device: `auto` does so on GPUs."""
    return setting == "always" or (setting == "auto" and device.type == "cuda")


def begin_step(device: torch.device) -> None:
    """What compiled functions gave out before this may be overwritten from now on."""
    if device.type == "cuda":
        torch.compiler.cudagraph_mark_step_begin()


def _limits() -> dict[str, Any]:
    """What allows a function to be compiled as often as `_RECOMPILE_LIMIT` says."""
    wanted: dict[str, Any] = {"recompile_limit": _RECOMPILE_LIMIT, "isolate_recompiles": True}
    known = inspect.signature(torch.compile).parameters
    if "recompile_limit" not in known:  # before PyTorch 2.12
        # The limit is the process's there.
        from torch._dynamo import config

        config.recompile_limit = max(config.recompile_limit, _RECOMPILE_LIMIT)
    return {name: value for name, value in wanted.items() if name in known}


def _backward_compiled_early() -> AbstractContextManager[Any]:
    """By default the backward pass is compiled when it runs, where nothing can take its place.

    PyTorch 2.9 has no such setting; there a forward pass that compiles has to do as a sign.
    """
    from torch._functorch import config

    if not hasattr(config, "force_non_lazy_backward_lowering"):
        return nullcontext()
    return config.patch(force_non_lazy_backward_lowering=True)


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
        options = _limits() | (options or _OPTIONS)
        self._run: Callable[P, T] = torch.compile(function, fullgraph=True, dynamic=False, **options)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._run is self._function:
            return self._function(*args, **kwargs)
        # Imported here: it takes seconds, and most processes never compile.
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

        try:
            with _backward_compiled_early() if torch.is_grad_enabled() else nullcontext():
                return self._run(*args, **kwargs)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            reason = " ".join(str(error).split("\n")[:2])  # what failed, and why
            logger.warning("%s runs uncompiled, and slower: torch.compile says: %s", self._name, reason)
            self._run = self._function
            return self._function(*args, **kwargs)
