"""The parts of a study file, and numbers as people write them."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tdmpc_ray.errors import brief, unknown
from tdmpc_ray.studies.file.paths import base
from tdmpc_ray.studies.tracking.client import DEFAULT_URI, absolute_uri, default_uri

# Searchers of Tune that learn from the scores of earlier trials: the package that each needs, and where from.
SEARCHERS = {
    "optuna": ("optuna", "'tdmpc-ray[optuna]'"),
    "hyperopt": ("hyperopt", "hyperopt"),
    "bayesopt": ("bayes_opt", "'bayesian-optimization<2'"),
    "ax": ("ax", "ax-platform"),
    "hebo": ("hebo", "HEBO"),
}
SEARCHES = {"random": "every point of the grids, the rest at random", "grid": "grids alone", **SEARCHERS}

LOGGERS = ("tensorboard", "wandb")  # trackers beside MLflow, see `run.loggers`

# Schedulers, and the keys that each knows.
SCHEDULERS = {
    "none": set[str](),
    "asha": {"grace_steps", "reduction"},
    "hyperband": {"grace_steps", "reduction"},
    "pbt": {"every", "quantile", "resample"},
    "pb2": {"every", "quantile"},
}


def _number(value: Any) -> Any:
    """YAML reads `1e6` as a string and `true` would pass as 1."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {str(value).lower()}")
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f"must be a number, not {brief(value)}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be a finite number, not {value}")
    return value


def _whole_above_one(gpus: float) -> float:
    """Ray cannot reserve one and a half GPUs."""
    if gpus > 1 and gpus % 1:
        raise ValueError(f"must be a share of one GPU, up to 1, or a whole number of GPUs, not {gpus:g}")
    return gpus


Count = Annotated[int, BeforeValidator(_number), Field(gt=0)]
CountOrNone = Annotated[int, BeforeValidator(_number), Field(ge=0)]
Seed = Annotated[CountOrNone, Field(le=2**32 - 1)]  # what NumPy and the simulators take
Amount = Annotated[float, BeforeValidator(_number), Field(ge=0)]
Name = Annotated[str, Field(min_length=1, max_length=250)]  # MLflow and file systems take no longer ones
GPUs = Annotated[Amount, AfterValidator(_whole_above_one)]


class Section(BaseModel):
    """A part of a study file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _by_name(value: Any) -> Any:
    """`search: optuna` is short for `search: {method: optuna}`."""
    return {"method": value} if isinstance(value, str) else value


class Search(Section):
    """What is tried next."""

    method: str = Field(default="random", description=f"one of: {', '.join(SEARCHES)}")
    options: dict[str, Any] = Field(
        default={}, description="for the searcher, as the class in ray.tune.search names them"
    )

    _short = model_validator(mode="before")(_by_name)

    @property
    def is_model_based(self) -> bool:
        """Whether it learns from the scores of earlier trials."""
        return self.method in SEARCHERS

    @field_validator("method")
    @classmethod
    def _exists(cls, method: str) -> str:
        if method not in SEARCHES:
            raise ValueError(str(unknown("search", method, SEARCHES)))
        return method

    @model_validator(mode="after")
    def _options_are_read(self) -> Search:
        if self.options and not self.is_model_based:
            raise ValueError(f"{self.method} has no options")
        return self


class Scheduling(Section):
    """Which trials go on: all, or those with the best evaluations so far."""

    method: str = Field(default="none", description=f"one of: {', '.join(SCHEDULERS)}")
    grace_steps: Count | None = Field(
        default=None, description="asha, hyperband: agent steps that every trial gets; none: a ninth of all"
    )
    reduction: Amount = Field(
        default=3, gt=1, description="asha, hyperband: one trial of so many goes on at each rung"
    )
    every: Count | None = Field(
        default=None,
        description="pbt, pb2: agent steps between two looks at a trial; none: a twentieth of all",
    )
    quantile: Amount = Field(
        default=0.25, gt=0, le=0.5, description="pbt, pb2: share of the worst, which take over from the best"
    )
    resample: Amount = Field(
        default=0.25, le=1, description="pbt: how often a setting is drawn anew instead of moved by a fifth"
    )

    _short = model_validator(mode="before")(_by_name)

    @property
    def stops_trials(self) -> bool:
        """Whether it ends trials before their last step."""
        return self.method in ("asha", "hyperband")

    @property
    def is_population(self) -> bool:
        """Whether trials go on from each other's checkpoints."""
        return self.method in ("pbt", "pb2")

    @property
    def compares_live_trials(self) -> bool:
        """Whether it judges trials by others that are under way."""
        return self.is_population or self.method == "hyperband"

    @field_validator("method")
    @classmethod
    def _exists(cls, method: str) -> str:
        if method not in SCHEDULERS:
            raise ValueError(str(unknown("scheduler", method, SCHEDULERS)))
        return method

    @model_validator(mode="after")
    def _keys_belong(self) -> Scheduling:
        defaults = {key: info.default for key, info in type(self).model_fields.items() if key != "method"}
        for key in sorted(defaults.keys() - SCHEDULERS[self.method]):
            if getattr(self, key) == defaults[key]:
                continue
            owners = [name for name, keys in SCHEDULERS.items() if key in keys]
            raise ValueError(f"{key} is a key of {' and '.join(owners)}, not of {self.method}")
        return self


class Evaluation(Section):
    """When and how long to evaluate, with the planner and without exploration noise."""

    every: Count = Field(default=50_000, description="agent steps between evaluations; one more at the end")
    episodes: Count = Field(default=10, description="episodes per evaluation")
    runners: CountOrNone = Field(
        default=0, description="processes that evaluate while training goes on; 0: training waits"
    )
    videos: bool = Field(default=False, description="film an episode of each task at the end")


class Resources(Section):
    """What each trial gets, and how many run at once."""

    num_env_runners: CountOrNone = Field(
        default=0, description="processes that act; 0: the main process acts"
    )
    num_envs_per_env_runner: Count = Field(
        default=1, description="environments per process, planned in one batch"
    )
    rollout_fragment_length: Count | None = Field(
        default=None,
        description="agent steps of an environment per request; none: 1 in turns, so that updates follow "
        "every step, and 25 of all a runner's environments where both go on at once",
    )
    asynchronous: bool | None = Field(
        default=None,
        description="sample and learn at once; false: in turns, reproducible; none: at once with env runners",
    )
    cpus_per_env_runner: Amount = 1
    gpus_per_env_runner: GPUs = Field(default=0, description="a fraction each lets several share a GPU")
    cpus_for_main_process: Amount = Field(
        default=1, description="it learns, unless there are learner processes"
    )
    num_learners: CountOrNone = Field(
        default=0, description="learner processes, which share each batch; 0: the main process learns"
    )
    gpus_per_learner: GPUs = 0
    max_concurrent_trials: Count | None = Field(default=None, description="none: as many as fit")


class Stop(Section):
    """When a trial ends before its last step."""

    score: Annotated[float, BeforeValidator(_number)] | None = Field(
        default=None, description="once its newest evaluation is that good"
    )
    hours: Amount | None = Field(default=None, gt=0, description="after so many, restarts included")


class Checkpoint(Section):
    """When to save; besides, at the end and on Ctrl-C."""

    every: Count | None = Field(
        default=None, description="agent steps between checkpoints; none: a tenth of all, 5,000 at most"
    )
    keep: Count = Field(default=2, description="newest checkpoints to keep per trial")


class Tracking(Section):
    """Where MLflow is."""

    uri: str = Field(
        default_factory=default_uri,
        validate_default=True,
        description=f"none: MLFLOW_TRACKING_URI of the environment, or {DEFAULT_URI}",
    )
    experiment: Name = "tdmpc-ray"
    models: bool = Field(
        default=True, description="at the end, log each trial's best checkpoint as a model that plans"
    )
    also: list[str] = Field(
        default=[],
        description="beside MLflow: tensorboard (event files in tune/TRIAL), wandb (a run per trial)",
    )
    system_metrics: bool = Field(
        default=False, description="log processors, memory, GPUs and energy of each trial's node (system/...)"
    )
    required: bool = Field(
        default=True, description="false: begin where MLflow does not answer, too; `sync` brings it the rest"
    )

    @field_validator("uri")
    @classmethod
    def _file_is_absolute(cls, uri: str, info: ValidationInfo) -> str:
        return absolute_uri(uri, base(info))

    @field_validator("also")
    @classmethod
    def _loggers_exist(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in LOGGERS:
                raise ValueError(str(unknown("tracker", name, LOGGERS)))
        return [*dict.fromkeys(names)]
