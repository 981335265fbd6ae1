"""What an agent declares of its settings, beside its code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tdmpc_ray.core.config import DataConfig, ModelSettings, PlannerConfig, UpdateSettings
from tdmpc_ray.errors import unknown


@dataclass(frozen=True)
class AgentSettings:
    """What an agent declares of its settings.

    Attributes:
        name: of the agent, by which study files and checkpoints know it.
        model: of its section `model`, the architecture.
        update: of its section `update`: losses, optimizers.
        sizes: a `model` for each model size.
        default_size: a key of these, where nobody names one; empty: the first.
        learns_sets: one model can learn several tasks.
        presets: dotted keys to values, by name; one is called "paper".
        suites: dotted keys to values, by the suite of simulators, where the published code departs from its
            defaults for a whole suite.
        repeats: simulator steps per action in the published runs, by domain of DMControl; "" of all others.
        domains: by preset, likewise for domains of DMControl, `dog`, and for observations, `rgb`.
    """

    name: str
    model: type[ModelSettings]
    update: type[UpdateSettings]
    sizes: Mapping[str, ModelSettings]
    presets: Mapping[str, Mapping[str, Any]]
    suites: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    default_size: str = ""
    learns_sets: bool = True
    repeats: Mapping[str, int] = field(default_factory=dict)
    domains: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    def published_repeat(self, suite: str, name: str) -> int | None:
        """Simulator steps per action that a task had in the published runs; None: what all agents have."""
        if suite != "dmcontrol":
            return None
        return self.repeats.get(name.partition("-")[0], self.repeats.get(""))

    @property
    def size(self) -> str:
        """The model size where nobody names one."""
        return self.default_size or next(iter(self.sizes))

    def of_tasks(self, tasks: Iterable[tuple[str, str]], obs: str, preset: str) -> dict[str, Any]:
        """What holds for some tasks, each its suite and name: what is the same for all of them."""
        shared = [set(self._of_task(suite, name, obs, preset).items()) for suite, name in tasks]
        return dict(set.intersection(*shared)) if shared else {}

    def _of_task(self, suite: str, name: str, obs: str, preset: str) -> dict[str, Any]:
        domains = self.domains.get(preset, {}) if suite == "dmcontrol" else {}
        found = {**self.suites.get(suite, {}), **domains.get(name.partition("-")[0], {})}
        return {**found, **self.domains.get(preset, {}).get(obs, {})}

    @property
    def keys_of_tasks(self) -> set[str]:
        """Settings that a task may decide."""
        domains = [by_domain for by_preset in self.domains.values() for by_domain in by_preset.values()]
        return {key for settings in (*self.suites.values(), *domains) for key in settings}

    @property
    def sections(self) -> dict[str, type]:
        """The dataclass of each section."""
        return {"model": self.model, "planner": PlannerConfig, "update": self.update, "data": DataConfig}

    @property
    def keys(self) -> list[str]:
        """All dotted keys that overrides may name."""
        return [
            f"{name}.{f.name}"
            for name, section in self.sections.items()
            for f in fields(section)
            if f.metadata.get("is_key", True)
        ]

    def split(self, key: str) -> tuple[str, str]:
        """Split `update.lr` into section and field.

        Raises:
            UserError: an unknown key; names the nearest.
        """
        if key not in self.keys:
            raise unknown("setting", key, self.keys)
        section, _, name = key.partition(".")
        return section, name
