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
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce
from itertools import islice, product
from operator import or_
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, model_validator

from tdmpc_ray.core.config import AgentConfig, agent_config
from tdmpc_ray.envs.catalog import common_metric
from tdmpc_ray.envs.tables import with_reward
from tdmpc_ray.envs.task import REWARDS
from tdmpc_ray.errors import unknown
from tdmpc_ray.studies.file.keys import StudyKeys, as_value_error, refuse_repeats
from tdmpc_ray.studies.file.paths import map_settings, map_space, relative
from tdmpc_ray.studies.file.points import RESOURCES, Point, with_resources
from tdmpc_ray.studies.file.search_checks import check_search
from tdmpc_ray.studies.tracking.client import public_uri
from tdmpc_ray.studies.tracking.kind import StudyKind

DATASET = "data.dataset"
_MAX_CHECKED = 1000  # combinations of the space that are checked one by one


class Study(StudyKeys):
    """One study: a trial for each task, model size, seed and point of the space."""

    @model_validator(mode="after")
    def _tasks_give_observations(self) -> Study:
        from tdmpc_ray.envs import check_obs, task_info

        if (self.task is None) == (not self.tasks):
            raise ValueError("give either 'task' or 'tasks', such as task: walker-walk")
        if self.reward not in REWARDS:
            raise ValueError(str(unknown("reward", self.reward, REWARDS)))
        for task in self.task_names:
            as_value_error(check_obs, task_info(task), self.obs)
        return self

    @model_validator(mode="after")
    def _updates_are_of_a_dataset(self) -> Study:
        if self.updates is not None and not self.is_offline:
            raise ValueError(f"updates: learning by updates alone needs {DATASET} in set; or give steps")
        return self

    @model_validator(mode="after")
    def _settings_fit(self) -> Study:
        both = sorted(set(self.overrides) & set(self.space))
        if both:
            raise ValueError(f"'{both[0]}' is both in set and in space: keep one")
        if self.num_samples > 1 and all(draw.grid is not None for draw in self.space.values()):
            raise ValueError("num_samples > 1 would repeat the same trials: space draws nothing at random")
        for size, name in product(self.model_sizes, self.algorithms):
            for probe in self._probes():
                as_value_error(self.agent_config, size, {**self.overrides, **_of_agent(probe)}, name)
                with_resources(self.resources, probe)
        for key, draw in self.space.items():
            if draw.grid or draw.choice:  # in their types: 1e-3 and 0.001 are one
                refuse_repeats(as_value_error(self.values, key), f"space.{key}: ")
        return self

    @model_validator(mode="after")
    def _search_and_scheduler_fit(self) -> Study:
        check_search(self)
        return self

    def _probes(self) -> list[dict[str, Any]]:
        """Values of the space to check: every combination, as long as these are few."""
        probes = {key: draw.probes() for key, draw in self.space.items()}
        if math.prod(len(values) for values in probes.values()) <= _MAX_CHECKED:
            return [dict(zip(probes, values, strict=True)) for values in product(*probes.values())]
        single = ({key: value} for key, values in probes.items() for value in values)
        return list(islice(single, _MAX_CHECKED))

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The keys of a study file to what they are where it does not say."""
        fields = cls.model_fields.items()
        known = {info.alias or key: info.get_default(call_default_factory=True) for key, info in fields}
        return {key: v.model_dump() if isinstance(v, BaseModel) else v for key, v in known.items()}

    def trials(self) -> int:
        """Number of trials."""
        grids = math.prod(len(draw.probes()) for draw in self.space.values() if draw.grid is not None)
        points = grids * len(self.task_names) * len(self.algorithms) * len(self.model_sizes)
        return points * len(self.seeds) * self.num_samples

    @property
    def algorithms(self) -> list[str]:
        """What learns: in each trial one of them."""
        return [self.algorithm] if isinstance(self.algorithm, str) else self.algorithm

    def agent_config(
        self, model_size: str, settings: Mapping[str, Any], algorithm: str | None = None
    ) -> AgentConfig:
        """The agent's settings in a trial; of the first algorithm, where none is named."""
        return agent_config(model_size, self.preset, settings, algorithm or self.algorithms[0])

    def settings(self) -> dict[str, Any]:
        """The fixed settings as numbers: `1e-3` is a string in YAML."""
        resolved = self._resolve(self.overrides)
        return {key: resolved[key] for key in self.overrides}

    @property
    def task_names(self) -> list[str]:
        """What is learned: by each trial one of them."""
        return [with_reward(name, self.reward) for name in self.tasks or [str(self.task)]]

    @property
    def what(self) -> str:
        """The tasks in a few words."""
        names = self.task_names
        return names[0] if len(names) == 1 else f"{len(names)} tasks"

    def steps_of(self, task: str) -> int:
        """Agent steps of a trial."""
        from tdmpc_ray.envs import task_info

        return self.steps * (max(len(task_info(task).tasks), 1) if self.steps_per_task else 1)

    @property
    def most_steps(self) -> int:
        """Agent steps of the longest trial."""
        return max(map(self.steps_of, self.task_names))

    @property
    def score(self) -> str:
        """The metric that trials are judged by: larger is better."""
        from tdmpc_ray.envs import task_info

        return self.metric or f"eval/{common_metric([task_info(task) for task in self.task_names])}"

    @property
    def score_key(self) -> str:
        """Where a trial's results have the newest value of it (see `AgentAlgorithm.step`)."""
        return f"latest/{self.score}"

    def enough(self, result: Mapping[str, Any]) -> str:
        """Why a trial with this newest result may end before its last step; empty: it may not."""
        score, hours = result.get("latest", {}).get(self.score), result.get("time_total_s", 0.0) / 3600
        if self.stop.score is not None and score is not None and score >= self.stop.score:
            return f"{self.score} reached {self.stop.score:g}"
        return (
            f"{self.stop.hours:g} hours" if self.stop.hours is not None and hours >= self.stop.hours else ""
        )

    @property
    def kind(self) -> StudyKind:
        """What is special about its trials."""
        from tdmpc_ray.envs import task_info

        method = self.scheduler.method
        is_true = {
            StudyKind.SEARCH: any(draw.grid is None for draw in self.space.values()),
            StudyKind.EARLY_STOPPED: method in ("asha", "hyperband"),
            StudyKind.POPULATION: self.scheduler.is_population,
            StudyKind.TASK_SET: any(task_info(task).tasks for task in self.task_names),
            StudyKind.OFFLINE: self.is_offline,
        }
        return reduce(or_, (kind for kind, holds in is_true.items() if holds), StudyKind.PLAIN)

    def public(self) -> Study:
        """A copy whose address of MLflow has no password."""
        tracking = self.tracking.model_copy(update={"uri": public_uri(self.tracking.uri)})
        return self.model_copy(update={"tracking": tracking})

    @property
    def is_offline(self) -> bool:
        """Whether its trials learn from a dataset alone; then their steps are updates."""
        return bool(self.overrides.get(DATASET)) or DATASET in self.space

    @property
    def checkpoint_steps(self) -> int:
        """Agent steps between two checkpoints of a trial."""
        return self.checkpoint.every or min(max(self.most_steps // 10, 1), 5000)

    @property
    def grace_steps(self) -> int:
        """Agent steps that no scheduler cuts short."""
        return self.scheduler.grace_steps or max(-(-self.most_steps // 9), self.evaluation.every)

    @property
    def perturbation_steps(self) -> int:
        """Agent steps between two exploits of a population."""
        return self.scheduler.every or max(self.most_steps // 20, self.evaluation.every)

    def values(self, key: str) -> list[Any]:
        """What `space` lists for a setting, or points of its range, in the setting's type."""
        return [self._resolve({key: value})[key] for value in self.space[key].probes()]

    def draws(self) -> dict[str, Any]:
        """What is drawn or suggested, in Tune's terms: setting to distribution."""
        drawn = {key: draw for key, draw in self.space.items() if draw.grid is None}
        return {key: draw.to_tune(self.values(key)) for key, draw in drawn.items()}

    def grids(self) -> dict[str, list[Any]]:
        """What every value is tried of, settings and resources, in their types."""
        return {key: self.values(key) for key, draw in self.space.items() if draw.grid is not None}

    def points(self) -> list[Point]:
        """What is tried in any case: each task, algorithm and model size with each point of the grids."""
        grids, fixed, found = self.grids(), self.settings(), []
        names = (self.task_names, self.algorithms, self.model_sizes)
        for task, algorithm, size, *values in product(*names, *grids.values()):
            at = dict(zip(grids, values, strict=True))
            settings, resources = {**fixed, **_of_agent(at)}, with_resources(self.resources, at)
            found.append(Point(task, algorithm, size, settings, resources, self.steps_of(task)))
        return found

    def drawn_points(self, matters: Callable[[str], bool]) -> list[Point]:
        """What may be drawn, at each of `points`: of one setting all its probes, of the others the first.

        Args:
            matters: which settings.
        """
        probes = {key: self.values(key) for key, draw in self.space.items() if draw.grid is None}
        first, points = {key: values[0] for key, values in probes.items()}, self.points()
        return [
            replace(point, settings={**first, **point.settings, key: value})
            for key, values in probes.items()
            if matters(key)
            for point, value in product(points, values)
        ]

    def random_steps(self, point: Point) -> int:
        """Agent steps before the first update."""
        from tdmpc_ray.envs import task_info

        agent = self.agent_config(point.model_size, point.settings, point.algorithm)
        info = task_info(point.task)
        return agent.data.num_seed_steps(info.episode_length, max(len(info.tasks), 1))

    def to_yaml(self, folder: Path | None = None) -> str:
        """This study with every default written out; nothing depends on the working directory.

        Args:
            folder: the study's own; what lies in it is named relative to it, so that it can be moved, and
                read again with `load_study(file, folder)`.
        """
        values = self.model_dump(by_alias=True, exclude={"updates"})  # steps say it

        def named(path: str) -> str:
            return path if folder is None else relative(path, Path(os.path.abspath(folder)))

        values["set"] = map_settings(self.settings(), named)
        space = map_space(self.space, named)
        values["space"] = {key: draw.model_dump(exclude_none=True) for key, draw in space.items()}
        values["start_from"] = self.start_from and named(self.start_from)
        return yaml.safe_dump(values, sort_keys=False)

    def _resolve(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings in their types; beside the space's first point, because alone they may not fit."""
        values = {**{key: draw.probes()[0] for key, draw in self.space.items()}, **values}
        settings = {**self.overrides, **_of_agent(values)}
        sections = self.agent_config(self.model_sizes[0], settings).to_dict()
        typed = {key: sections[key.partition(".")[0]][key.partition(".")[2]] for key in settings}
        resources = with_resources(self.resources, values).model_dump()
        return typed | {f"{RESOURCES}{name}": value for name, value in resources.items()}


def _of_agent(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without resources."""
    return {key: value for key, value in values.items() if not key.startswith(RESOURCES)}
