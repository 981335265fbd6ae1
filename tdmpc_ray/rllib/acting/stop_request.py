"""The request to stop, from the process that runs a study to those of its trials.

A trial answers no call while it evaluates, which may take an hour, so it looks for the request itself: in the
key-value store of Ray's head, which all processes of a Ray job reach wherever they run.
"""

from __future__ import annotations

import time

import ray
from ray.exceptions import RpcError
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_exists,
    _internal_kv_initialized,
    _internal_kv_put,
)

LOOK_EVERY_S = 1.0  # hundreds of trials ask one head

_looked_at = 0.0


class EvaluationStopped(Exception):
    """An evaluation was given up because its study is to stop."""


def ask_to_stop() -> None:
    """Ask all trials of this Ray job that evaluate to give that up."""
    if _internal_kv_initialized():
        _internal_kv_put(_key(), b"1")


def withdraw() -> None:
    """Take the request back: a study begins."""
    if _internal_kv_initialized():
        _internal_kv_del(_key())


def is_asked() -> bool:
    """Whether this Ray job's trials are to stop; False without Ray."""
    try:
        return bool(_internal_kv_initialized() and _internal_kv_exists(_key()))
    except RpcError:  # the head is busy, or goes; whoever waits for an answer will learn it
        return False


def check(share: float = 0.0) -> None:
    """Called often by an evaluation, which looks for the request now and then.

    Args:
        share: of the evaluation that is done; of no interest here.

    Raises:
        EvaluationStopped: it is there.
    """
    global _looked_at
    if time.monotonic() - _looked_at < LOOK_EVERY_S:
        return
    _looked_at = time.monotonic()
    if is_asked():
        raise EvaluationStopped


def _key() -> bytes:
    return f"tdmpc_ray/stop/{ray.get_runtime_context().get_job_id()}".encode()
