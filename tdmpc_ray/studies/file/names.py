"""What studies, their folders and jobs are called where nobody says so."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

_MOST_BYTES = 100  # of the study's name; file systems hold 143 to 255, and more is added to it
_MOST_CHARS = 40  # of a value in a name

# Keys that every name has, that `resume` may change, or that change nothing of what is learned.
_NOT_NAMED = {"task", "model_sizes", "seeds", "steps", "evaluation", "checkpoint", "tracking"}


def file_name(text: str) -> str:
    """The text without what file names should not have."""
    return re.sub(r"[^\w.-]+", "-", text).lstrip("-.")


def new_name(study: str) -> str:
    """As much of its name as file systems hold, when it begins, and what tells it from others of then."""
    name = study.encode()[:_MOST_BYTES].decode(errors="ignore")
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def run_name(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Name a run of one trial by its task, size, seed, and what else was set.

    Args:
        values: keys of a study to their values.
        defaults: the same to what they are where nobody sets them.
    """
    size, seed = values["model_sizes"][0], values["seeds"][0]
    words = [values["task"], f"size{size}", f"seed{seed}"]
    for key, value in values.items():
        if key in _NOT_NAMED or value == defaults[key]:
            continue
        if isinstance(value, Mapping):
            own = {name: part for name, part in value.items() if part != defaults[key].get(name)}
            words += [f"{short}-{_short(own[name])}" for name, short in _short_keys([*own]).items()]
        else:
            words.append(f"from-{_short(value)}" if key == "start_from" else _short(value))
    return file_name("-".join(words))


def _short_keys(keys: list[str]) -> dict[str, str]:
    """Keys to their last parts, where these tell them apart."""
    last = [key.rpartition(".")[2].removeprefix("num_") for key in keys]
    return {key: word if last.count(word) == 1 else key for key, word in zip(keys, last, strict=True)}


def _short(value: Any) -> str:
    """A value, of a path its end."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.rstrip("/").rpartition("/")[2][-_MOST_CHARS:]
