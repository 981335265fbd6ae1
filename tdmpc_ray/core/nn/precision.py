"""The type that matrix products run in. Parameters, norms, losses and optimizers are float32 in any case.

What enters and leaves a product is rounded: latents and logits, but not the values read from logits. Planning
on the CPU (`planners/fused.py`) rounds only what enters.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def prepare_device(device: torch.device, tf32: bool) -> None:
    """Say for this process how its GPU multiplies float32; on a CPU there is nothing to say.

    Args:
        device: to act or learn on.
        tf32: round factors to ten bits, which is many times faster; `model.tf32`.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True  # measures which convolution is fastest, as published


def products_in(dtype: str, device: torch.device) -> AbstractContextManager:
    """Run the matrix products inside in `dtype`, one of `config.DTYPES`.

    Whole weights are rounded once per context. So a context must not begin without gradients and go on with
    them, unless the weights need none: the rounded ones stay without.
    """
    return torch.autocast(device.type, torch.bfloat16) if dtype == "bf16" else nullcontext()
