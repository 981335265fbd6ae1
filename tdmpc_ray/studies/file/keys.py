"""The keys of a study file, each checked by itself."""

from __future__ import annotations

from itertools import product
from typing import Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from tdmpc_ray.core.agent_settings import AgentSettings
from tdmpc_ray.core.agents import DEFAULT_AGENT, find_settings
from tdmpc_ray.core.config import agent_config
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.draws import Draw
from tdmpc_ray.studies.file.paths import absolute, map_settings, map_space
from tdmpc_ray.studies.file.points import RESOURCES, check_resource
from tdmpc_ray.studies.file.reading import refuse_huge
from tdmpc_ray.studies.file.sections import (
    Amount,
    Checkpoint,
    Count,
    CountOrNone,
    Evaluation,
    Name,
    Resources,
    Scheduling,
    Search,
    Section,
    Seed,
    Stop,
    Tracking,
)


class StudyKeys(Section):
    """What can be written in a study file."""

    name: Name = Field(pattern=r"^\w[\w.-]*$", description="letters, digits, '-', '_' and '.'")
    task: str | None = Field(
        default=None, description="a task, a set of them (mt30, mt80), or a list for one model"
    )
    tasks: list[str] = Field(default=[], description="instead of task: several, each with trials of its own")
    obs: str = Field(default="state", description="state, or rgb: camera frames (DMControl, Meta-World)")
    reward: str = Field(default="dense", description="dense, or sparse: success - 1 (Meta-World)")
    algorithm: str | list[str] = Field(
        default=DEFAULT_AGENT,
        description="tdmpc2, tdmpc, or `module:AGENT` for one of your own; a list: trials of each",
    )
    preset: str = Field(default="paper", description="paper: the published settings; light: for CPUs")
    model_sizes: list[str] = Field(
        default=["5"], min_length=1, description="of the algorithm; tdmpc has 1 in the place of 5"
    )
    seeds: list[Seed] = Field(default=[0], min_length=1)
    steps: Count = Field(description="agent steps per trial; updates, with a dataset to learn from alone")
    updates: Count | None = Field(default=None, description="the same as steps, for `data.dataset`")
    steps_per_task: bool = Field(
        default=False, description="steps are those of each task: a set of four takes four times as many"
    )
    overrides: dict[str, Any] = Field(
        default={}, alias="set", description="fixed settings, `update.lr: 1e-3`"
    )
    space: dict[str, Draw] = Field(
        default={}, description="settings to vary; also `resources.num_env_runners: {grid: [1, 2, 4]}`"
    )
    start_from: str | None = Field(
        default=None, description="checkpoint whose networks every trial begins with"
    )
    embed_as: str | None = Field(
        default=None,
        description="task of `start_from` whose embedding trials begin with; `mean`: of all; `best`: by "
        "the first episodes; none: their own",
    )
    num_samples: Count = Field(default=1, description="draws of what is not a grid")
    search: Search = Search()
    scheduler: Scheduling = Scheduling()
    metric: str | None = Field(
        default=None,
        pattern=r"^eval/.+",
        description="what search and scheduler go by; none: eval/success where tasks are judged by it, "
        "eval/return, or eval/score where some are by each",
    )
    stop: Stop = Stop()
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
    learner_timeout_s: Amount = Field(
        default=3600,
        description="seconds that a learner in a process of its own may leave a call unanswered; 0: any time",
    )
    tracking: Tracking = Field(default_factory=Tracking)

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_huge(cls, values: Any) -> Any:
        refuse_huge(values)
        return values

    @model_validator(mode="before")
    @classmethod
    def _updates_are_steps(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("updates") is None:
            return values
        if values.get("steps", values["updates"]) != values["updates"]:
            raise ValueError("give either steps, or updates with data.dataset")
        return {**values, "steps": values["updates"]}

    @model_validator(mode="before")
    @classmethod
    def _size_is_the_algorithms(cls, values: Any) -> Any:
        """Where none is given; what is wrong with the algorithm is for its own check to say."""
        if not isinstance(values, dict) or "model_sizes" in values:
            return values
        named = values.get("algorithm", DEFAULT_AGENT)
        try:
            sizes = {find_settings(name).size for name in ([named] if isinstance(named, str) else named)}
        except (UserError, TypeError, AttributeError):
            return values
        if len(sizes) > 1:
            raise ValueError("model_sizes: the algorithms' defaults differ: name sizes that all of them have")
        return {**values, "model_sizes": [*sizes] or ["5"]}

    @field_validator("model_sizes", mode="before")
    @classmethod
    def _sizes_are_names(cls, sizes: Any) -> Any:
        return [_worded(size) for size in sizes] if isinstance(sizes, list) else sizes

    @field_validator("model_sizes", "seeds")
    @classmethod
    def _no_repeats(cls, values: list[Any]) -> list[Any]:
        refuse_repeats(values)
        return values

    @field_validator("model_sizes")
    @classmethod
    def _sizes_exist(cls, sizes: list[str], info: ValidationInfo) -> list[str]:
        for size, agent in product(sizes, _agents_of(info)):
            as_value_error(agent_config, size, "paper", {}, agent.name)
        return sizes

    @field_validator("algorithm")
    @classmethod
    def _algorithms_exist(cls, algorithm: str | list[str]) -> str | list[str]:
        names = [algorithm] if isinstance(algorithm, str) else algorithm
        for name in names:
            as_value_error(find_settings, name)
        refuse_repeats(names)
        if not names:
            raise ValueError("name at least one")
        return algorithm

    @field_validator("preset")
    @classmethod
    def _preset_exists(cls, preset: str, info: ValidationInfo) -> str:
        for agent in _agents_of(info):
            as_value_error(agent_config, None, preset, {}, agent.name)
        return preset

    @field_validator("task", mode="before")
    @classmethod
    def _several_tasks_are_a_set(cls, task: Any) -> Any:
        is_set = isinstance(task, list) and task and all(isinstance(name, str) for name in task)
        return "+".join(task) if is_set else task

    @field_validator("tasks", mode="before")
    @classmethod
    def _sets_among_tasks(cls, tasks: Any) -> Any:
        return [cls._several_tasks_are_a_set(task) for task in tasks] if isinstance(tasks, list) else tasks

    @field_validator("task")
    @classmethod
    def _task_exists(cls, task: str | None) -> str | None:
        from tdmpc_ray.envs import task_info

        return None if task is None else str(as_value_error(task_info, task).name)

    @field_validator("tasks")
    @classmethod
    def _tasks_exist(cls, tasks: list[str]) -> list[str]:
        return cls._no_repeats([str(cls._task_exists(task)) for task in tasks])

    @field_validator("overrides")
    @classmethod
    def _settings_exist(cls, settings: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        for key in settings:
            if key in cls.model_fields:
                raise ValueError(f"'{key}' is no setting of the agent: give it beside set, not in it")
            _require_setting(key, info)
        return map_settings(settings, lambda path: absolute(path, info))

    @field_validator("space")
    @classmethod
    def _space_exists(cls, space: dict[str, Draw], info: ValidationInfo) -> dict[str, Draw]:
        for key, draw in space.items():
            if key.startswith(RESOURCES):
                check_resource(key, draw)
            else:
                _require_setting(key, info)
        return map_space(space, lambda path: absolute(path, info))

    @field_validator("start_from")
    @classmethod
    def _start_is_absolute(cls, path: str | None, info: ValidationInfo) -> str | None:
        return path and absolute(path, info)


def _agents_of(info: ValidationInfo) -> list[AgentSettings]:
    """Of the study's algorithms; where these are refused, nothing else is to be said of them."""
    algorithm = info.data.get("algorithm", DEFAULT_AGENT)
    return [find_settings(name) for name in ([algorithm] if isinstance(algorithm, str) else algorithm)]


def _require_setting(key: str, info: ValidationInfo) -> None:
    """Refuse a key that one of the algorithms does not have."""
    for agent in _agents_of(info):
        as_value_error(agent.split, key)


def _worded(size: Any) -> Any:
    return str(size) if isinstance(size, int | float) and not isinstance(size, bool) else size


def refuse_repeats(values: list[Any], where: str = "") -> None:
    """Refuse equal values, which would stand for the same trials.

    Raises:
        ValueError: says which one, after `where`.
    """
    for number, value in enumerate(values):
        if value in values[:number]:  # compared: a schedule has no hash
            raise ValueError(f"{where}{str(value)[:80]} is there twice")


def as_value_error(check: Any, *args: Any) -> Any:
    """Call `check`; pydantic gathers ValueErrors, and adds where in the file they are."""
    try:
        return check(*args)
    except UserError as error:
        raise ValueError(str(error)) from None
