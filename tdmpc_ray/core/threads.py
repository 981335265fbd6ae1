"""How many threads PyTorch uses in a process that nobody else has told."""

from __future__ import annotations

import os

import torch


def limit_threads(num: int) -> None:
    """Use at most `num` threads, unless `OMP_NUM_THREADS` asks for a number.

    PyTorch takes a thread per core. They wait for each other busily, so that products as small as these
    become many times slower as soon as another process needs one of the cores.
    """
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > num:
        torch.set_num_threads(max(num, 1))
