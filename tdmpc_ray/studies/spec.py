"""A study file: what to train, over which settings, sizes and seeds, with what resources.

    name: quickstart
    task: walker-walk
    model_sizes: [tiny, 1]
    seeds: [0]
    steps: 6000
    space: {update.lr: {loguniform: [1e-4, 1e-3]}, planner.horizon: {grid: [2, 3, 5]}}

Everything is checked when the file is read, before Ray starts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from itertools import islice, product
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator, model_validator

from tdmpc_ray.core.config import PRESETS, agent_config, split_key
from tdmpc_ray.errors import UserError, unknown
from tdmpc_ray.studies.draws import Draw
from tdmpc_ray.studies.mlflow_client import absolute_uri
from tdmpc_ray.studies.search_checks import check_search
from tdmpc_ray.studies.sections import (
    Amount,
    Checkpoint,
    Count,
    CountOrNone,
    Evaluation,
    Resources,
    Scheduling,
    Search,
    Section,
    Tracking,
)

_MAX_CHECKED = 1000  # combinations of the space that are checked one by one


class Study(Section):
    """One study: a trial for each model size, seed and point of the space."""

    name: str = Field(pattern=r"^\w[\w.-]*$", description="letters, digits, '-', '_' and '.'")
    task: str = Field(description="a task, a set of them (mt30, mt80), or a list for one model")
    obs: str = Field(default="state", description="state, or rgb: stacked camera frames of DMControl's tasks")
    preset: str = Field(default="paper", description="paper: the published settings; light: for CPUs")
    model_sizes: list[str] = Field(default=["5"], min_length=1)
    seeds: list[CountOrNone] = Field(default=[0], min_length=1)
    steps: Count = Field(description="agent steps per trial")
    overrides: dict[str, Any] = Field(
        default={}, alias="set", description="fixed settings, `update.lr: 1e-3`"
    )
    space: dict[str, Draw] = Field(default={}, description="settings to vary")
    start_from: str | None = Field(
        default=None, description="checkpoint whose networks every trial begins with"
    )
    num_samples: Count = Field(default=1, description="draws of what is not a grid")
    search: Search = Search()
    scheduler: Scheduling = Scheduling()
    metric: str | None = Field(
        default=None,
        pattern=r"^eval/.+",
        description="what search and scheduler go by; none: eval/success where tasks are judged by it, or "
        "eval/return",
    )
    evaluation: Evaluation = Evaluation()
    resources: Resources = Resources()
    checkpoint: Checkpoint = Checkpoint()
    max_failures: CountOrNone = Field(default=2, description="restarts of a trial from its latest checkpoint")
    max_env_faults: CountOrNone = Field(
        default=10, description="faults of environments within 1,000 agent steps that a trial survives"
    )
    env_step_timeout_s: Amount = Field(
        default=60, description="seconds that a step of an environment may take; 0: any time"
    )
    tracking: Tracking = Tracking()

    @field_validator("model_sizes", mode="before")
    @classmethod
    def _sizes_are_names(cls, sizes: Any) -> Any:
        return [str(size) for size in sizes] if isinstance(sizes, list) else sizes

    @field_validator("model_sizes", "seeds")
    @classmethod
    def _no_repeats(cls, values: list[Any]) -> list[Any]:
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"{value} is there twice")
        return values

    @field_validator("model_sizes")
    @classmethod
    def _sizes_exist(cls, sizes: list[str]) -> list[str]:
        for size in sizes:
            _as_value_error(agent_config, size)
        return sizes

    @field_validator("preset")
    @classmethod
    def _preset_exists(cls, preset: str) -> str:
        if preset not in PRESETS:
            raise ValueError(str(unknown("preset", preset, PRESETS)))
        return preset

    @field_validator("task", mode="before")
    @classmethod
    def _several_tasks_are_a_set(cls, task: Any) -> Any:
        return "+".join(map(str, task)) if isinstance(task, list) and task else task

    @field_validator("task")
    @classmethod
    def _task_exists(cls, task: str) -> str:
        from tdmpc_ray.envs import task_info

        return str(_as_value_error(task_info, task).name)

    @field_validator("overrides", "space")
    @classmethod
    def _settings_exist(cls, settings: dict[str, Any]) -> dict[str, Any]:
        for key in settings:
            _as_value_error(split_key, key)
        return settings

    @model_validator(mode="after")
    def _task_gives_observations(self) -> Study:
        from tdmpc_ray.envs import check_obs, task_info

        _as_value_error(check_obs, task_info(self.task), self.obs)
        return self

    @model_validator(mode="after")
    def _settings_fit(self) -> Study:
        both = sorted(set(self.overrides) & set(self.space))
        if both:
            raise ValueError(f"'{both[0]}' is both in set and in space: keep one")
        if self.num_samples > 1 and all(draw.grid is not None for draw in self.space.values()):
            raise ValueError("num_samples > 1 would repeat the same trials: space draws nothing at random")
        for size in self.model_sizes:
            for point in self._points():
                _as_value_error(agent_config, size, self.preset, {**self.overrides, **point})
        return self

    @model_validator(mode="after")
    def _search_and_scheduler_fit(self) -> Study:
        check_search(self)
        return self

    def _points(self) -> list[dict[str, Any]]:
        """Values of the space to check: every combination, as long as these are few."""
        probes = {key: draw.probes() for key, draw in self.space.items()}
        if math.prod(len(values) for values in probes.values()) <= _MAX_CHECKED:
            return [dict(zip(probes, values, strict=True)) for values in product(*probes.values())]
        single = ({key: value} for key, values in probes.items() for value in values)
        return list(islice(single, _MAX_CHECKED))

    def trials(self) -> int:
        """Number of trials."""
        grids = math.prod(len(draw.grid) for draw in self.space.values() if draw.grid is not None)
        return len(self.model_sizes) * len(self.seeds) * grids * self.num_samples

    def settings(self) -> dict[str, Any]:
        """The fixed settings as numbers: `1e-3` is a string in YAML."""
        return self._resolve(self.overrides)

    @property
    def score(self) -> str:
        """The metric that trials are judged by: larger is better."""
        from tdmpc_ray.envs import task_info

        judged_by_success = task_info(self.task).metric == "success"
        return self.metric or ("eval/success" if judged_by_success else "eval/return")

    @property
    def score_key(self) -> str:
        """Where a trial's results have the newest value of it (see `TDMPC2.step`)."""
        return f"latest/{self.score}"

    @property
    def grace_steps(self) -> int:
        """Agent steps that no scheduler cuts short."""
        return self.scheduler.grace_steps or max(-(-self.steps // 9), self.evaluation.every)

    @property
    def perturbation_steps(self) -> int:
        """Agent steps between two exploits of a population."""
        return self.scheduler.every or max(self.steps // 20, self.evaluation.every)

    def values(self, key: str) -> list[Any]:
        """What `space` lists for a setting, or points of its range, in the setting's type."""
        return [self._resolve({key: value})[key] for value in self.space[key].probes()]

    def draws(self) -> dict[str, Any]:
        """What is drawn or suggested, in Tune's terms: setting to distribution."""
        return {key: value for key, value in self._distributions().items() if self.space[key].grid is None}

    def groups(self) -> list[dict[str, Any]]:
        """What is tried in any case: each size with each point of the grids, as `search_space` names it."""
        grids = {key: draw for key, draw in self.space.items() if draw.grid is not None}
        points = product(*map(self.values, grids))
        fixed = [{**self.settings(), **dict(zip(grids, point, strict=True))} for point in points]
        return [
            {"model_size": size, "agent_overrides": settings}
            for size in self.model_sizes
            for settings in fixed
        ]

    def search_space(self) -> dict[str, Any]:
        """What differs between trials, and the fixed settings, in Tune's terms.

        Returns:
            `model_size`, `seed` and `agent_overrides` (dotted keys), as attributes of `TDMPC2Config`. With a
            model-based search, which chooses them itself, the first of each.
        """
        from ray import tune

        if self.search.is_model_based:
            return {**self.groups()[0], "seed": self.seeds[0]}

        def over(values: list[Any]) -> Any:
            return tune.grid_search(values) if len(values) > 1 else values[0]

        return {
            "model_size": over(self.model_sizes),
            "seed": over(self.seeds),
            "agent_overrides": {**self.settings(), **self._distributions()},
        }

    def random_steps(self) -> int:
        """Agent steps before the first update, under the fixed settings."""
        from tdmpc_ray.envs import task_info

        agent = agent_config(self.model_sizes[0], self.preset, self.settings())
        return agent.data.num_seed_steps(task_info(self.task).episode_length)

    def foresees_termination(self) -> bool:
        """Whether the episodic model is on for the task's sake, and not because the study says so."""
        from tdmpc_ray.envs import task_info

        said = "model.episodic" in {**self.overrides, **self.space}
        return not said and task_info(self.task).can_terminate

    def to_yaml(self, folder: Path | None = None) -> str:
        """This study with every default written out; nothing depends on the working directory.

        Args:
            folder: the study's own; what lies in it is named relative to it, so that it can be moved.
        """
        values = self.model_dump(by_alias=True)
        values["set"] = self.settings()
        values["space"] = {key: draw.model_dump(exclude_none=True) for key, draw in self.space.items()}
        if self.start_from:
            start, home = (os.path.abspath(path) for path in (self.start_from, folder or "/"))
            is_inside = folder is not None and Path(start).is_relative_to(home)
            values["start_from"] = os.path.relpath(start, home) if is_inside else start
        values["tracking"]["uri"] = absolute_uri(self.tracking.uri)
        return yaml.safe_dump(values, sort_keys=False)

    def within(self, folder: Path) -> Study:
        """As `to_yaml` wrote it for its folder, wherever that lies now."""
        return self.model_copy(update={"start_from": self.start_from and str(folder / self.start_from)})

    def _distributions(self) -> dict[str, Any]:
        return {key: draw.to_tune(self.values(key)) for key, draw in self.space.items()}

    def _resolve(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings in their types; beside the space's first point, because alone they may not fit."""
        settings = {**self.overrides, **self._points()[0], **values}
        sections = agent_config(self.model_sizes[0], self.preset, settings).to_dict()
        return {key: sections[split_key(key)[0]][split_key(key)[1]] for key in values}


def _as_value_error(check: Any, *args: Any) -> Any:
    """Call `check`; pydantic gathers ValueErrors, and adds where in the file they are."""
    try:
        return check(*args)
    except UserError as error:
        raise ValueError(str(error)) from None
