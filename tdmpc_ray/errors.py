"""Errors that are the user's to fix. Every layer may import this module, which imports none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The message says in one line what is wrong and what to do; the CLI exits with status 2."""


class PassingError(UserError):
    """What may be gone at another try: a study starts a trial again that ends with it, but not otherwise."""


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice most similar to `name`, or None where nothing is similar.

    A written-out name (`update.learning_rate`) is nearest to its initials (`update.lr`).
    """
    choices = list(choices)
    section, dot, last = name.rpartition(".")
    initials = "".join(word[0] for word in last.split("_") if word)
    if len(initials) > 1 and section + dot + initials in choices:
        return section + dot + initials
    matches = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return matches[0] if matches else None


def unknown(what: str, name: str, choices: Iterable[str], hint: str = "") -> UserError:
    """Build the error for a name that is not among `choices`: names the nearest one, or else all of them."""
    known = list(choices)
    best = nearest(name, known)
    fix = f"did you mean '{best}'?" if best else f"choose one of: {', '.join(known)}"
    return UserError(f"unknown {what} '{name}': {fix}{' ' + hint if hint else ''}")


def reason(error: BaseException) -> str:
    """What went wrong, in one line: the first of the message, or the kind of error where it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
