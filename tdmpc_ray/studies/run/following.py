"""A job's log, read over connections that may be cut."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable

_CUT = re.compile(r"WebSocket|\b50[234]\b")  # the latter: a proxy's answer where nobody is behind it


class Unwritable(Exception):
    """What a job has printed cannot be handed on; the cause says why."""


class Log:
    """Hands on a log of which every reading begins at the beginning, each part once.

    Args:
        write: called with what is new.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._num_written = write, 0
        self.num_read = 0  # characters of the present reading

    async def read(self, texts: AsyncIterator[str]) -> None:
        """Hand on what has not been yet.

        Raises:
            Unwritable: the user's side is closed, which is no lost connection.
        """
        self.num_read = 0
        async for text in texts:
            new = text[max(self._num_written - self.num_read, 0) :]
            self.num_read += len(text)
            if new:
                self._num_written = self.num_read
                try:
                    self._write(new)
                except OSError as error:
                    raise Unwritable from error


def is_cut(error: Exception) -> bool:
    """Whether an error that is no OSError says that a connection was lost."""
    kinds = {kind.__name__ for kind in type(error).__mro__}  # aiohttp need not be installed
    return "ClientConnectionError" in kinds or _CUT.search(str(error)) is not None
