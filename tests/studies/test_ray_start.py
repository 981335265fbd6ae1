"""A Ray that does not start, or is not one."""

from __future__ import annotations

from typing import Any

import pytest

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.run import cluster
from tdmpc_ray.studies.run.cluster import capacity, check_resources


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: /a/b"),
            "set RAY_TMPDIR to a folder with a shorter path, such as /tmp",
        ),
        (PermissionError(13, "Permission denied", "/x"), "set RAY_TMPDIR to a folder that is there and"),
        (FileNotFoundError(2, "No such file", "/x"), "set RAY_TMPDIR to a folder that is there and that you"),
        (OSError(28, "No space left on device", "/x"), "make room on that disk, or set RAY_TMPDIR to"),
        (RuntimeError("Timed out after 30 s"), "on a busy machine, try again with `resume`"),
    ],
)
def test_a_ray_that_does_not_start(error: Exception, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr("ray.init", fail)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError) as caught, cluster.ray_session({"CPU": 1}, lambda line: None):
        pass
    assert str(caught.value).startswith("Ray did not start (")
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://head:8265", "is a job server's address: hand the study in with `tdmpc-ray submit"),
        ("ray://head:10001", "is the address for Ray clients, which cannot run studies: give HOST:6379"),
    ],
)
def test_addresses_of_something_else(address: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", address)
    for check in (capacity, check_resources):
        with pytest.raises(UserError) as caught:
            check({"CPU": 1})
        assert str(caught.value).startswith(f"RAY_ADDRESS={address} {said}")
