"""How many threads and compiling processes PyTorch uses where nobody else has said it."""

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


def limit_compilers() -> None:
    """Let torch.compile use at most a process per thread, unless `TORCHINDUCTOR_COMPILE_THREADS` is set.

    It would start one per core of the machine, up to 32, in each of the processes that share them.
    """
    if "TORCHINDUCTOR_COMPILE_THREADS" not in os.environ:
        from torch._inductor import config  # late: most processes never compile

        config.compile_threads = min(config.compile_threads or 1, torch.get_num_threads())
