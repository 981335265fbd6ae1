"""Pickles that name a user's own modules, read where these may be missing."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from tdmpc_ray.errors import reason


class Absent:
    """Stands for a class or function that cannot be imported here; takes what its pickle gives it."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Absent:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Reader(pickle.Unpickler):
    missing = ""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except Exception as error:  # of a foreign module, anything may come
            self.missing = self.missing or f"{module}:{name} ({reason(error)})"
            return type(name, (Absent,), {"__module__": module})


def read_foreign(file: Path) -> tuple[Any, str]:
    """What a file of pickle holds, with an `Absent` for what cannot be imported here.

    Returns:
        The object, and the first that is absent, `MODULE:NAME (why)`; empty: nothing is.
    """
    with file.open("rb") as stream:
        reader = _Reader(stream)
        return reader.load(), reader.missing
