"""The type that matrix products run in. Parameters, norms, losses and optimizers are float32 in any case.

What enters and leaves a product is rounded: latents and logits, but not the values read from logits. Planning
on the CPU (`planners/fused.py`) rounds only what enters.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

DTYPES = ("fp32", "bf16")


def products_in(dtype: str, device: torch.device) -> AbstractContextManager:
    """Run the matrix products inside in `dtype`, one of DTYPES.

    Whole weights are rounded once per context. So a context must not begin without gradients and go on with
    them, unless the weights need none: the rounded ones stay without.
    """
    return torch.autocast(device.type, torch.bfloat16) if dtype == "bf16" else nullcontext()
