"""What `--json` prints: each form is checked when it is made, and docs/json.md is written from it."""

from __future__ import annotations

from pydantic import BaseModel, Field

Number = float | None  # null: not known, or no finite number


class JobForm(BaseModel):
    """A study on a cluster; `list` prints a list of these, oldest first, `status` one."""

    id: str = Field(description="what `submit` printed")
    study: str = Field(description="its name")
    status: str = Field(description="PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED")
    message: str = Field(description="Ray's, about it")
    started: Number = Field(description="seconds since 1970")
    ended: Number = Field(description="seconds since 1970")


class TaskForm(BaseModel):
    """A task that matches."""

    name: str
    suite: str
    obs_size: int | str | None = Field(description="length of the observation, `images`, or `images+LENGTH`")
    action_size: int | None
    episode_length: int = Field(description="agent steps")
    metric: str = Field(description="return or success: what tells how well a policy does")
    installed: bool = Field(description="whether it can be built here")
    obstacle: str | None = Field(description="what is in the way")


class EpisodeForm(BaseModel):
    """A recorded episode."""

    source: str = Field(description="file, and where in it")
    task: str = Field(description="empty where the file does not say it")
    steps: int
    total_return: float
    success: bool | None = Field(description="at its end; null where the file does not say it")
    terminated: bool = Field(description="whether it ended in a terminal state")
    obs_shape: list[int]
    action_size: int


class DemosForm(BaseModel):
    """What `demos` has found."""

    where: str
    steps: int = Field(description="of all episodes")
    episodes: list[EpisodeForm]


class DatasetTaskForm(BaseModel):
    """A task of a dataset."""

    name: str
    obs_shape: list[int]
    action_size: int
    episodes: int
    steps: int
    mean_return: float
    least_return: float
    most_return: float
    success: Number = Field(description="share of the episodes that say it; null where none does")


class DatasetForm(BaseModel):
    """What `dataset info` has found."""

    folder: str
    half: bool = Field(description="whether numbers are in half precision")
    bytes: int = Field(description="on disk")
    sources: list[str]
    tasks: list[DatasetTaskForm]


class ResultForm(BaseModel):
    """A row of `compare`'s table: a task, model size and setting, or a task's random policy."""

    task: str
    model_size: str = Field(description="or random policy")
    setting: str = Field(default="", description="what else varies, `lr=0.001`; empty where nothing")
    params: Number = Field(default=None, description="trainable parameters")
    seeds: int = Field(description="trials that count")
    unfinished: int = Field(default=0, description="trials that have not finished")
    stopped_early: bool = Field(default=False, description="whether a scheduler has ended what counts")
    final: float = Field(description="mean of the last evaluations")
    low: Number = Field(default=None, description="of the mean's 95% interval; null for one seed")
    high: Number = Field(default=None, description="likewise")
    best: Number = Field(default=None, description="of any evaluation")
    env_steps: Number = Field(default=None, description="agent steps, mean per trial")
    hours: Number = Field(default=None, description="sum over trials")
    steps_per_s: Number = Field(default=None, description="mean over trials")
    run_ids: list[str] = Field(description="in MLflow, of the trials that count")


class PublishedForm(BaseModel):
    """A setting beside a published curve."""

    task: str
    model_size: str
    setting: str
    algorithm: str
    env_frames: int = Field(description="where both were evaluated")
    seeds: int
    value: float = Field(description="mean over seeds")
    published: Number = Field(description="mean over its seeds; null where it begins later")
    published_from: int = Field(description="its first point, in frames")


class CompareForm(BaseModel):
    """What `compare` has found."""

    experiment: str
    study: str = Field(description="name, or names")
    run_ids: list[str] = Field(description="of the studies in MLflow")
    metric: str
    results: list[ResultForm]
    published: list[PublishedForm] = Field(description="with --over")
    figure: str = Field(description="its file")
    charts: str = Field(description="where MLflow shows them, in words")


class TrialPlanForm(BaseModel):
    """The trials of one point of a study."""

    label: str
    trials: int
    params: int = Field(description="trainable parameters")
    num_env_runners: int
    steps: int = Field(description="agent steps")
    plan_ms: float = Field(description="of one decision")
    update_ms: float = Field(description="of one update")
    sampling_per_s: float = Field(description="agent steps that the runners could take")
    learning_per_s: float = Field(description="agent steps that the learner could keep up with")
    steps_per_s: float = Field(description="agent steps, once learning has begun")
    balance: int = Field(description="env runners whose sampling the learner just keeps up with")
    hours: float
    train_flops: float = Field(description="of all updates")
    act_flops: float = Field(description="of all plans")


class ForecastForm(BaseModel):
    """How long a study takes."""

    at_once: int = Field(description="trials at the same time; 0: none fits")
    hours: Number = Field(description="of the study; null where no trial fits")
    points: list[TrialPlanForm]


class NeedForm(BaseModel):
    """What a trial needs to reach a result, by the law of earlier runs."""

    label: str
    threshold: str = Field(description="the result")
    steps: float = Field(description="after which 95 % of such runs have reached it")
    interval: tuple[float, float] = Field(description="95 %, of these steps")
    hours: float = Field(description="of one such run")
    hours_interval: tuple[float, float]
    share: float = Field(description="of such runs that the study's own steps suffice for")
    is_beyond: bool = Field(description="size or ratio lie beyond what the law was fitted to")


class PlanForm(BaseModel):
    """A study that was not started."""

    study: str
    tasks: list[str]
    trials: int
    steps: int = Field(description="agent steps of the longest trial")
    labels: list[str] = Field(description="of all trials")
    notes: list[str] = Field(description="what a user might not expect")
    request: dict[str, float] = Field(
        description="the most of each resource that Ray reserves for a trial, memory in bytes"
    )
    where: str = Field(description="what it would run on, in words")
    obstacle: str | None = Field(description="why it does not fit there; null: it fits")
    speeds: str = Field(description="that the forecasts are computed from, in words")
    as_written: ForecastForm
    better: ForecastForm | None = Field(
        description="with another number of env runners, where that ends first"
    )
    needs: list[NeedForm] = Field(default=[], description="with --law: by result, the fastest trial first")
