"""How one setting of a study varies: a grid, or draws from a distribution."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tdmpc_ray.errors import brief, unknown
from tdmpc_ray.studies.file.reading import MOST_COUNTED

KINDS = {
    "grid": "[values], every one of them",
    "choice": "[values], one at random per sample",
    "uniform": "[low, high]",
    "loguniform": "[low, high]",
    "randint": "[low, high], whole numbers, high excluded",
}


class Draw(BaseModel):
    """Exactly one of the kinds, such as `{loguniform: [1e-4, 1e-3]}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    grid: list[Any] | None = Field(default=None, min_length=1, description=KINDS["grid"])
    choice: list[Any] | None = Field(default=None, min_length=1, description=KINDS["choice"])
    uniform: tuple[float, float] | None = Field(default=None, description=KINDS["uniform"])
    loguniform: tuple[float, float] | None = Field(default=None, description=KINDS["loguniform"])
    randint: tuple[int, int] | None = Field(default=None, description=KINDS["randint"])

    @model_validator(mode="before")
    @classmethod
    def _one_kind(cls, value: Any) -> Any:
        if isinstance(value, Draw):
            return value
        if isinstance(value, list):
            raise ValueError(
                f"say how to use the values: {{grid: {brief(value)}}} or {{choice: {brief(value)}}}"
            )
        if not isinstance(value, dict):
            raise ValueError(f"give a distribution, or put the fixed value {brief(value)} under 'set'")
        for kind in value:
            if kind not in KINDS:
                name = kind if isinstance(kind, str) else brief(kind)
                raise ValueError(str(unknown("distribution", name, KINDS)))
        if len(value) != 1:
            raise ValueError(f"give exactly one of: {', '.join(KINDS)}")
        [(kind, given)] = value.items()
        if kind not in ("grid", "choice") and not (isinstance(given, list) and len(given) == 2):
            raise ValueError(f"{kind} needs [low, high], not {brief(given)}")
        return value

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Draw:
        for kind in ("uniform", "loguniform", "randint"):
            bounds = getattr(self, kind)
            if bounds is None:
                continue
            is_finite = all(isinstance(bound, int) or math.isfinite(bound) for bound in bounds)
            if not (is_finite and bounds[0] < bounds[1]):
                raise ValueError(f"{kind} needs [low, high] with low < high, not {brief(list(bounds))}")
            if kind == "randint" and max(map(abs, bounds)) > MOST_COUNTED:
                raise ValueError(f"randint needs numbers within ±{MOST_COUNTED}, not {brief(list(bounds))}")
            if kind == "loguniform" and bounds[0] <= 0:
                raise ValueError(f"loguniform needs a low above 0, not {bounds[0]}")
        return self

    def probes(self) -> list[Any]:
        """Values to check before anything runs: all that are listed, or both ends and one between."""
        listed = self.grid or self.choice
        if listed is not None:
            return list(listed)
        if self.randint is not None:
            return [self.randint[0], self.randint[1] - 1]
        low, high = self.uniform or self.loguniform or (0.0, 0.0)
        return [low, high, low + (high - low) * 0.381966]  # not whole: refused by settings that count

    def to_tune(self, values: list[Any]) -> Any:
        """The search value for Tune.

        Args:
            values: `probes()`, in the setting's type.
        """
        from ray import tune

        if self.grid is not None:
            return tune.grid_search(values)
        if self.choice is not None:
            return tune.choice(values)
        if self.randint is not None:
            return tune.randint(*self.randint)
        return tune.uniform(*values[:2]) if self.uniform else tune.loguniform(*values[:2])
