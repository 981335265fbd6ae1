"""What a study that has begun may still get: more of what it tries, and what concerns no trial's course."""

from __future__ import annotations

from typing import Any

import yaml

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.spec import Study

# Read anew at every start; a section's name stands for all of its keys.
_FREE = ("tracking", "stop", "checkpoint.every", "resources.max_concurrent_trials", "max_failures")
_MORE = ("steps", "seeds", "num_samples", "model_sizes", "tasks", "space")


def growth(before: Study, now: Study) -> list[str]:
    """What a study tries more than when it began, a phrase each.

    Args:
        before: as it began.
        now: as it shall go on.

    Raises:
        UserError: a change that its trials cannot take, by name.
    """
    was, wanted = _flat(before), _flat(now)
    grown = []
    for key in dict.fromkeys([*was, *wanted]):
        old, new = was.get(key), wanted.get(key)
        if old == new or key in _FREE or key.partition(".")[0] in _FREE:
            continue
        said = f"{key}: {_words(old)} -> {_words(new)}"
        if not _is_more(old, new):
            raise UserError(
                f"cannot go on with {said}: a study that has begun can only get more steps, seeds, samples, "
                "model sizes, tasks or values of a grid; begin a new one"
            )
        if why := _refusal(key.partition(".")[0], now):
            raise UserError(f"cannot go on with {said}: {why}; begin a new study")
        grown.append(said)
    return grown


def _refusal(key: str, study: Study) -> str:
    """Why a study of its kind cannot get more of this; empty: it can."""
    if key not in _MORE:
        return "its trials have begun with the other"
    if study.scheduler.stops_trials and key == "steps":
        return f"{study.scheduler.method} has judged its trials by the steps it began with"
    if study.scheduler.is_population and key != "steps":
        return f"the members of a population ({study.scheduler.method}) begin together"
    if study.search.is_model_based and key not in ("steps", "num_samples"):
        return f"{study.search.method} has chosen settings without it"
    return ""


def _flat(study: Study) -> dict[str, Any]:
    """Keys of the file to what stands there; those of a section by `section.key`."""
    flat: dict[str, Any] = {}
    for name, value in yaml.safe_load(study.public().to_yaml()).items():
        if name == "space":
            value = {key: study.values(key) if "grid" in draw else draw for key, draw in value.items()}
        within = value if isinstance(value, dict) else {"": value}
        flat |= {f"{name}.{key}".rstrip("."): inner for key, inner in within.items()}
    return flat


def _is_more(old: Any, new: Any) -> bool:
    if isinstance(old, list) and isinstance(new, list):
        return all(value in new for value in old)
    both = isinstance(old, int) and isinstance(new, int) and not isinstance(new, bool)
    return both and new > old


def _words(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
