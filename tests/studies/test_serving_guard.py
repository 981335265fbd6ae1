"""What `serve` looks at before it reads a body."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tdmpc_ray.serving.guard import Guard, Rules

RULES = Rules(token="let-me-in", max_bytes=100)
KEY = (b"authorization", b"Bearer let-me-in")


def ask(headers: Sequence[tuple[bytes, bytes]], *parts: bytes, path: str = "/v1/act") -> tuple[Any, int, int]:
    """What the application got (None: it was not asked), the status, and how many parts were read."""
    got, status, left = None, 200, [*parts]

    async def receive() -> dict[str, Any]:
        part = left.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal got
        got = await receive()

    scope = {"type": "http", "path": path, "headers": [*headers]}
    asyncio.run(Guard(app, lambda: RULES)(scope, receive, send))
    return got, status, len(parts) - len(left)


@pytest.mark.parametrize(
    "headers", [[], [(b"authorization", b"Bearer wrong")], [(b"authorization", b"\xff")]]
)
def test_without_the_token_nothing_is_read(headers: list[tuple[bytes, bytes]]) -> None:
    assert ask(headers, b"[" * 50) == (None, 401, 0)
    assert ask([*headers, (b"content-length", b"11000000")], b"[" * 50) == (None, 401, 0)
    assert ask(headers, b"", path="/nowhere") == (None, 401, 0)
    assert ask(headers, b"", path="/healthz")[1] == 200


def test_too_much_is_not_read() -> None:
    assert ask([KEY, (b"content-length", b"101")], b"x" * 101) == (None, 413, 0)
    assert ask([KEY], *[b"x" * 40] * 10) == (None, 413, 3), "a body may come without a length"
    got, status, read = ask([KEY, (b"content-length", b"100")], b"x" * 60, b"y" * 40)
    assert (status, read) == (200, 2)
    assert got == {"type": "http.request", "body": b"x" * 60 + b"y" * 40, "more_body": False}
