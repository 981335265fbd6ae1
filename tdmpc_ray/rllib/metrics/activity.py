"""What keeps a trial from reporting results for a while, told to the process that runs its study.

As with the request to stop, by the key-value store of Ray's head: within a call, a trial answers nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import ray
from ray.exceptions import RpcError
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_initialized,
    _internal_kv_list,
    _internal_kv_put,
)

ACTIVITIES = ("saving", "evaluating", "filming")  # of several at once, the last one counts


@contextlib.contextmanager
def doing(trial_id: str, what: str) -> Iterator[None]:
    """Within, a trial is about one of `ACTIVITIES`; without Ray, nobody is told."""
    key = f"{_prefix()}{trial_id}/{what}".encode() if _internal_kv_initialized() else b""
    with contextlib.suppress(RpcError):  # the head is busy, or goes: not worth a trial
        if key:
            _internal_kv_put(key, b"1")
    try:
        yield
    finally:
        with contextlib.suppress(RpcError):
            if key:
                _internal_kv_del(key)


def activities() -> dict[str, str]:
    """The trials of this Ray job that are about something, by their ids; one call, however many there are."""
    if not _internal_kv_initialized():
        return {}
    try:
        keys = _internal_kv_list(_prefix().encode())
    except RpcError:
        return {}
    found = [key.decode().rsplit("/", 2)[1:] for key in keys]
    return dict(sorted(found, key=lambda pair: ACTIVITIES.index(pair[1])))


def forget(trial_id: str) -> None:
    """Drop what a process that died has left of a trial."""
    if _internal_kv_initialized():
        with contextlib.suppress(RpcError):
            _internal_kv_del(f"{_prefix()}{trial_id}/".encode(), del_by_prefix=True)


def _prefix() -> str:
    return f"tdmpc_ray/doing/{ray.get_runtime_context().get_job_id()}/"
