"""Operations that tests of tracking give to it."""

from __future__ import annotations

from typing import Any

from tdmpc_ray.studies.tracking import ops as run_ops

NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens there


def make_run(key: str = "s", **values: Any) -> run_ops.Op:
    defaults: dict[str, Any] = {
        "name": key,
        "time": 1,
        "tags": {"kind": "study"},
        "params": {},
        "parent": None,
    }
    return run_ops.create(key, **{**defaults, **values})


def point(key: str, step: int, value: float | None = None) -> run_ops.Op:
    return run_ops.metrics(key, {"m": float(step) if value is None else value}, step=step, time=1000 + step)
