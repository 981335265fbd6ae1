"""Settings that change over a run: `{linear: [0.5, 0.05, 25000]}` in the place of a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, NamedTuple, Self, get_type_hints

from tdmpc_ray.core.checks import coerce
from tdmpc_ray.errors import UserError, brief

SHARE = "data.demonstration_share"
_FORM = "{linear: [first, last, agent steps]}"


class Schedule(NamedTuple):
    """From one value to another in a straight line, over the first agent steps of a run.

    Attributes:
        name: of the setting, without its section.
        first, last: values; of a setting that counts, whole ones.
        steps: agent steps between them.
    """

    name: str
    first: float
    last: float
    steps: int

    def at(self, step: float) -> float:
        """The value at an agent step; rounded down where the setting counts."""
        share = min(max(step / self.steps, 0.0), 1.0)
        value = (1 - share) * self.first + share * self.last
        return int(value) if isinstance(self.last, int) else value

    @property
    def value(self) -> dict[str, list[float]]:
        """As it is written."""
        return {"linear": [self.first, self.last, self.steps]}


class Scheduled:
    """A section of settings, a frozen dataclass, some of whose numbers may change over a run.

    Attributes:
        section: its name.
        schedules: of these; the last value of each stands for its setting wherever one is asked.
    """

    section: ClassVar[str]
    schedules: tuple[Schedule, ...]

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Of numbers and schedules."""
        kinds = get_type_hints(cls)
        found = [
            parse_schedule(f"{cls.section}.{name}", value, kinds[name])
            for name, value in values.items()
            if isinstance(value, Mapping)
        ]
        last: dict[str, Any] = {**values, **{s.name: s.last for s in found}, "schedules": tuple(found)}
        return cls(**last)

    def to_values(self) -> dict[str, Any]:
        """What `from_values` takes."""
        section: Any = self
        values = {f.name: getattr(self, f.name) for f in fields(section) if f.name != "schedules"}
        return values | {schedule.name: schedule.value for schedule in self.schedules}

    def at(self, step: float) -> Self:
        """With the numbers that hold at an agent step."""
        if not self.schedules:
            return self
        now: dict[str, Any] = {schedule.name: schedule.at(step) for schedule in self.schedules}
        section: Any = self
        changed: Self = replace(section, schedules=(), **now)
        return changed


def parse_schedule(key: str, value: Mapping[str, Any], kind: Any) -> Schedule:
    """Read what stands in the place of a number.

    Args:
        key: of the setting, dotted.
        value: what is written there.
        kind: type of the setting.

    Raises:
        UserError: it is no schedule, or the setting can have none.
    """
    section, _, name = key.partition(".")
    is_number = bool({int, float} & {kind, *getattr(kind, "__args__", ())})
    if not is_number or (section != "planner" and key != SHARE):
        raise UserError(f"{key} cannot change over a run: only numbers of the planner and {SHARE} can")
    given = value.get("linear") if isinstance(value, Mapping) and len(value) == 1 else None
    if not isinstance(given, list | tuple) or len(given) != 3:
        raise UserError(f"{key}={brief(value)} is no schedule: give {_FORM}")
    if None in given:
        raise UserError(f"{key}={brief(value)} is no schedule: give {_FORM}")
    first, last = (coerce(key, number, kind) for number in given[:2])
    steps = coerce(f"{key}: agent steps", given[2], int)
    if steps < 1:
        raise UserError(f"{key}={brief(value)}: its agent steps must be positive")
    return Schedule(name, first, last, steps)
