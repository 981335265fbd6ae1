"""Folders by address, such as `s3://bucket/folder`. Every layer may import this module."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath

from tdmpc_ray.errors import UserError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://")
_HOST = re.compile(r"(\[[^]@]*\]|[^/?#@:]*)(:\d*)?(/[^?#@]*)?")  # with its port and path, without a user
_KEY = re.compile(r"[\w.-]+")
_PLAIN_VALUE = re.compile(r"(?:[\w./:+,-]|%2F|%3A)*", re.IGNORECASE)  # no address with a password
_HARMLESS = {
    *("allow_bucket_creation", "allow_bucket_deletion", "endpoint_override", "region", "scheme"),  # of S3
    *("host", "hostaddr", "port", "user", "database", "dbname", "driver", "charset", "sslmode", "timeout"),
    *("connect_timeout", "application_name", "mode", "cache"),
}


def is_address(place: object) -> bool:
    """Whether this names a folder by an address, not by a path."""
    return _ADDRESS.match(str(place)) is not None


def absolute(place: str | Path, home: str | Path = "") -> str:
    """The absolute path of a folder that is named relative to `home`; an address as it is."""
    return str(place) if is_address(place) else os.path.abspath(os.path.join(home, place))


def public_address(address: str) -> str:
    """An address of a folder without its secrets: keys before its host are left out, others are `***`."""
    scheme, _, rest = address.partition("://")
    # A key has its secret behind a colon, and a folder's name may hold an '@'.
    has_keys = re.match("[^/]*[:@]", rest) is not None
    keys, place = split_user(rest) if has_keys else ("", masked_query(rest))
    return f"{scheme}://***" if keys is None else f"{scheme}://{place}"


def split_user(rest: str) -> tuple[str | None, str]:
    """The user and password before an address's host, and what follows them, with its secrets as `***`.

    Args:
        rest: an address without its scheme; what should be `%40` or `%2F` in a password may be '@' or '/'.

    Returns:
        None as the user where an '@' may belong to a password or to a query; then nothing of it can be shown.
    """
    head, query = _split_query(rest)
    if "@" in query and not _HOST.fullmatch(head):
        if "@" in head or "=" in query.rpartition("@")[0]:
            return None, ""
        head, query = rest, ""
    user, _, place = head.rpartition("@")
    return user, masked_query(place + query)


def masked_query(place: str) -> str:
    """An address, or its end, whose query and fragment show only values that are known as harmless."""
    path, query = _split_query(place)
    return path + re.sub(r"([?#&])([^&]+)", lambda found: found[1] + masked_part(found[2]), query)


def masked_part(part: str) -> str:
    """`key=***` for a part of a query, unless it is known as harmless; `***` for one without a key."""
    key, equals, value = part.partition("=")
    if key.lower() in _HARMLESS and _PLAIN_VALUE.fullmatch(value):
        return part
    return f"{key}=***" if equals and _KEY.fullmatch(key) else "***"


def _split_query(rest: str) -> tuple[str, str]:
    found = re.search("[?#]", rest)
    return (rest, "") if found is None else (rest[: found.start()], rest[found.start() :])


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
