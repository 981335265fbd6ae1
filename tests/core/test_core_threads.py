"""The number of threads in a process that nobody else has told."""

import pytest
import torch

from tdmpc_ray.core.threads import limit_threads


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
