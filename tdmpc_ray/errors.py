"""Errors that are the user's to fix. Every layer may import this module, which imports none."""

from __future__ import annotations

import difflib
import math
import re
import reprlib
from collections.abc import Iterable

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # of terminals
# First lines that say little.
_ONLY_PLACE = re.compile(r"ray::|Traceback \(most recent call last\):")
_PYDANTIC = re.compile(r"\d+ validation errors? for \S+$")
_YAML = re.compile(r"(^|: )while \w+ing (a|an|the) [\w ]+$")
_ERROR = re.compile(r"[\w.]*(Error|Exception|Interrupt|Warning)\b")


class _Short(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write a number of more than 4,300 digits.
        if x.bit_length() <= 1000:
            return super().repr_int(x, level)
        return f"a number of about {x.bit_length() * math.log10(2):,.0f} digits"


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxtuple = _SHORT.maxset = 10
_SHORT.maxlevel = 3


class UserError(Exception):
    """Bad input. The message says in one line what is wrong and what to do; the CLI exits with status 2."""


class PassingError(UserError):
    """What may be gone at another try: a study starts a trial again that ends with it, but not otherwise."""


def brief(value: object, limit: int = 80) -> str:
    """A value as Python writes it, cut where it is long: what is wrong with it shows at its beginning."""
    shortened = _SHORT.repr(value)
    return shortened if len(shortened) <= limit else f"{shortened[: limit - 3]}..."


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
    name = name if len(name) <= 80 else f"{name[:77]}..."
    best = nearest(name, known)
    fix = f"did you mean '{best}'?" if best else f"choose one of: {', '.join(known)}"
    return UserError(f"unknown {what} '{name}': {fix}{' ' + hint if hint else ''}")


def reason(error: BaseException) -> str:
    """What went wrong, in one line: the gist of the message, and the cause where it is another one.

    Without a message: the cause alone, or else the kind of error.
    """
    text = _gist(str(error))
    if isinstance(error, KeyError) and text:  # its message is the key
        text = f"{type(error).__name__}: {text}"
    context = None if error.__suppress_context__ else error.__context__
    cause = error.__cause__ or (None if text else context)
    if cause is None:
        return text or type(error).__name__
    why = reason(cause)
    if why in text or not text:
        return text or why
    return f"{text.rstrip('.:')}: {why}"


def described(error: BaseException) -> str:
    """The kind of error and what went wrong, in one line."""
    kind, text = type(error).__name__, reason(error)
    return text if text.startswith(kind) else f"{kind}: {text}"


def _gist(message: str) -> str:
    """The line of a message that says something: a traceback ends with it, a heading leads to it."""
    lines = [line for line in _COLOUR.sub("", message).splitlines() if line.strip()]
    frames = [number for number, line in enumerate(lines) if line.lstrip().startswith('File "')]
    if frames:
        ends = [number for number in range(frames[-1], len(lines)) if not lines[number][0].isspace()]
        lines = lines[ends[0] :] if ends else lines
    elif lines and _ONLY_PLACE.match(lines[0]):
        lines = next((lines[number:] for number, line in enumerate(lines) if _ERROR.match(line)), lines)
    first, second, third = ([line.strip() for line in lines] + [""] * 3)[:3]
    if _PYDANTIC.search(first) and third:
        return f"{first}: {second}: {third.partition(' [type=')[0]}"
    if _YAML.search(first):
        problem = next((line for line in lines[1:] if not line[0].isspace()), "")
        return f"{first}: {problem}".removesuffix(": ")
    return f"{first} {second}".strip() if first.endswith(":") else first
