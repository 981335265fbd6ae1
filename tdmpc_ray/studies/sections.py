"""The parts of a study file, and numbers as people write them."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tdmpc_ray.studies.mlflow_client import DEFAULT_URI


def _number(value: Any) -> Any:
    """YAML reads `1e6` as a string and `true` would pass as 1."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {str(value).lower()}")
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f"must be a number, not '{value}'") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be a finite number, not {value}")
    return value


Count = Annotated[int, BeforeValidator(_number), Field(gt=0)]
CountOrNone = Annotated[int, BeforeValidator(_number), Field(ge=0)]
Amount = Annotated[float, BeforeValidator(_number), Field(ge=0)]


class Section(BaseModel):
    """A part of a study file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
    rollout_fragment_length: Count = Field(
        default=25, description="agent steps of an environment between updates"
    )
    asynchronous: bool | None = Field(
        default=None,
        description="sample and learn at once; false: in turns, reproducible; none: at once with env runners",
    )
    cpus_per_env_runner: Amount = 1
    gpus_per_env_runner: Amount = Field(default=0, description="a fraction each lets several share a GPU")
    cpus_for_main_process: Amount = Field(
        default=1, description="it learns, unless there are learner processes"
    )
    num_learners: CountOrNone = Field(
        default=0, description="learner processes, which share each batch; 0: the main process learns"
    )
    gpus_per_learner: Amount = 0
    max_concurrent_trials: Count | None = Field(default=None, description="none: as many as fit")


class Checkpoint(Section):
    """When to save; besides, at the end and on Ctrl-C."""

    every: Count = Field(default=5000, description="agent steps between checkpoints")
    keep: Count = Field(default=2, description="newest checkpoints to keep per trial")


class Tracking(Section):
    """Where MLflow is."""

    uri: str = DEFAULT_URI
    experiment: str = Field(default="tdmpc-ray", min_length=1)
