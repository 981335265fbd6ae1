"""What is looked at before a request's body is read: who asks, and how much comes."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse

_OPEN = "/healthz"  # the one path that needs no token
_BYTES_PER_NUMBER = 64  # of JSON: 17 digits, a sign, an exponent, commas and indentation
_BYTES_BESIDE = 16_384  # names, brackets

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Rules:
    """What a replica asks of requests.

    Attributes:
        token: that they bear; empty: none.
        max_bytes: of a body.
    """

    token: str
    max_bytes: int


def max_bytes(numbers: int) -> int:
    """A body's, with an observation of so many numbers."""
    return _BYTES_BESIDE + _BYTES_PER_NUMBER * numbers


class Guard:
    """ASGI middleware: 401 without the token, 413 for too much, both before anything is read.

    Args:
        app: what answers the others; gets each body in one piece.
        rules: called for each request.
    """

    def __init__(self, app: App, rules: Callable[[], Rules]) -> None:
        self._app, self._rules = app, rules

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        rules, headers = self._rules(), dict(scope["headers"])
        given = headers.get(b"authorization", b"")
        asks_for_token = rules.token and scope["path"] != _OPEN
        if asks_for_token and not hmac.compare_digest(given, f"Bearer {rules.token}".encode()):
            await _unauthorized(scope, receive, send)
            return
        length = headers.get(b"content-length", b"0")
        body = None if length.isdigit() and int(length) > rules.max_bytes else await _read(receive, rules)
        if body is None:
            text = f"the body is larger than an observation can be ({rules.max_bytes:,} bytes)"
            await JSONResponse({"error": text}, 413)(scope, receive, send)
            return
        pieces: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pieces.pop() if pieces else await receive()

        await self._app(scope, replay, send)


_unauthorized = JSONResponse(
    {"error": "send the header Authorization: Bearer TOKEN"}, 401, {"WWW-Authenticate": "Bearer"}
)


async def _read(receive: Receive, rules: Rules) -> bytes | None:
    """The whole body, or None once it is too large."""
    parts, size = [], 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > rules.max_bytes:
            return None
        parts.append(part)
        if message["type"] != "http.request" or not message.get("more_body", False):
            return b"".join(parts)
