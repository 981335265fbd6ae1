"""Folders by address, such as `s3://bucket/folder`. Every layer may import this module."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath

from tdmpc_ray.errors import UserError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://")


def is_address(place: object) -> bool:
    """Whether this names a folder by an address, not by a path."""
    return _ADDRESS.match(str(place)) is not None


def absolute(place: str | Path, home: str | Path = "") -> str:
    """The absolute path of a folder that is named relative to `home`; an address as it is."""
    return str(place) if is_address(place) else os.path.abspath(os.path.join(home, place))


def public_address(address: str) -> str:
    """An address without the keys that stand before its host."""
    return re.sub("//[^/@]*@", "//", address)


def refuse_address(path: PurePath) -> None:
    """Refuse an object store's address, which as a path would name a folder `s3:` here.

    Raises:
        UserError: it is one. Only its scheme is shown, because the rest may hold a key.
    """
    scheme = next((part for part in path.parts if _SCHEME.fullmatch(part)), None)
    if scheme is not None:
        raise UserError(
            f"{scheme}//... is an address, and this takes a folder or file: copy it to a disk first, or "
            "give a folder that all machines share"
        )
