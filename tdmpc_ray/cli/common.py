"""What the commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def make_console() -> Console:
    """Standard output; a file or a pipe has no width, so tables get enough."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=120)
