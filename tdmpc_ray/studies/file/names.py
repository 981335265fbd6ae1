"""What a study's folder or job is called where nobody says so."""

from __future__ import annotations

import secrets
import time

_MOST_BYTES = 100  # of the study's name; file systems hold 143 to 255, and more is added to it


def new_name(study: str) -> str:
    """As much of its name as file systems hold, when it begins, and what tells it from others of then."""
    name = study.encode()[:_MOST_BYTES].decode(errors="ignore")
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
