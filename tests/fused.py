"""Functions with and without the compiled kernels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tdmpc_ray.core.nn import kernels


def both(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Same outputs and same gradients with and without the compiled kernels."""

    def run() -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = function(*leaves)
        weights = torch.linspace(-1, 1, out.numel()).view_as(out)
        with torch.no_grad():
            torch.testing.assert_close(function(*inputs), out)
        return [out.detach(), *torch.autograd.grad((out * weights).sum(), leaves)]

    fused = run()
    monkeypatch.setattr(kernels, "library", lambda: None)
    for ours, reference in zip(fused, run(), strict=True):
        torch.testing.assert_close(ours, reference, rtol=2e-5, atol=2e-5)
