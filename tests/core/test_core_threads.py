"""The number of threads and of compiling processes where nobody else has said it."""

import pytest
import torch
from torch._inductor import config as inductor

from tdmpc_ray.core.nn.compiled import Compiled
from tdmpc_ray.core.nn.threads import limit_threads


@pytest.mark.parametrize(("asked", "threads"), [(None, 1), ("3", 2)])
def test_threads_are_limited_unless_the_user_asks(
    asked: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    torch.set_num_threads(2)
    try:
        limit_threads(1)
        assert torch.get_num_threads() == threads
        limit_threads(4)
        assert torch.get_num_threads() == threads  # never more
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(("asked", "processes"), [(None, 1), ("7", 9)])
def test_whoever_compiles_takes_no_more_processes_than_threads_unless_the_user_asks(
    asked: str | None, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", asked)
    assert torch.get_num_threads() == 1
    with inductor.patch(compile_threads=9):
        Compiled(torch.sin, backend="eager")
        assert inductor.compile_threads == processes
