"""Whether a study's space, searcher and scheduler go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdmpc_ray.errors import brief, unknown
from tdmpc_ray.studies.file.draws import Draw

if TYPE_CHECKING:
    from tdmpc_ray.studies.file.spec import Study

# What a trial cannot change while it runs: networks, optimizers and replay are made for it.
_FIXED = (
    "model.",
    "planner.horizon",
    "data.capacity",
    "data.demonstrations",
    "data.seed_steps",
    "data.utd_ratio",  # by which schedules know how far a run is
    "update.joint",
)


def check_search(study: Study) -> None:
    """Refuse combinations that would mislead or fail later.

    Raises:
        ValueError: says which, and what to do.
    """
    _check_searcher(study)
    if study.scheduler.method != "none" and len(study.task_names) > 1:
        raise ValueError(
            f"scheduler: {study.scheduler.method} would compare returns of different tasks: give one task"
        )
    if study.scheduler.stops_trials:
        _check_grace(study)
    if study.scheduler.is_population:
        _check_population(study)
    limit, trials = study.resources.max_concurrent_trials, study.trials()
    if study.scheduler.compares_live_trials and limit is not None and limit < trials:
        raise ValueError(
            f"resources.max_concurrent_trials: scheduler: {study.scheduler.method} compares trials that are "
            f"under way, and of {trials} only {limit} would be: leave it out, or "
            f"set it to {trials}"
        )


def _check_searcher(study: Study) -> None:
    method, drawn = study.search.method, [key for key, draw in study.space.items() if draw.grid is None]
    if method == "grid" and drawn:
        raise ValueError(f"search: grid tries all values, but {drawn[0]} is drawn: give it a grid")
    if not study.search.is_model_based:
        return
    if not drawn:
        raise ValueError(f"search: {method} has nothing to choose: give a setting in space a range or choice")
    _check_options(study, drawn)
    if study.scheduler.is_population:
        raise ValueError(
            f"scheduler: {study.scheduler.method} changes settings by itself: use it without search"
        )
    if study.scheduler.stops_trials and len(study.seeds) > 1:
        raise ValueError(
            f"search: {method} compares means over seeds, which scheduler: {study.scheduler.method} would "
            "take at different steps: give one seed, or no scheduler"
        )


def _check_options(study: Study, drawn: list[str]) -> None:
    """What a searcher would take without a word, or refuse in its own."""
    options = study.search.options
    for key in ("metric", "mode", "space"):
        if key in options:
            raise ValueError(f"search.options: the study itself says the {key}: leave it out")
    points = options.get("points_to_evaluate") or []
    for point in points if isinstance(points, list) else []:
        for key, value in point.items() if isinstance(point, dict) else ():
            if key not in drawn:
                raise ValueError(f"search.options.points_to_evaluate: {unknown('setting', str(key), drawn)}")
            if not _is_within(study.space[key], value):
                raise ValueError(
                    f"search.options.points_to_evaluate: {key}={brief(value)} lies outside its range in space"
                )


def _is_within(draw: Draw, value: object) -> bool:
    """Whether a range or a choice has a value; what is no number is the searcher's to refuse."""
    if draw.choice is not None:
        return value in draw.choice
    bounds = draw.uniform or draw.loguniform or draw.randint
    return bounds is None or not isinstance(value, int | float) or bounds[0] <= value <= bounds[1]


def _check_grace(study: Study) -> None:
    grace, first = study.grace_steps, study.evaluation.every
    if grace < first:
        raise ValueError(
            f"scheduler.grace_steps: {grace:,} steps come before the first evaluation (evaluation.every: "
            f"{first:,}): nothing could be compared"
        )
    if grace >= study.most_steps:
        raise ValueError(
            f"scheduler: trials of {study.most_steps:,} steps would never be stopped before their end: lower "
            "scheduler.grace_steps or evaluation.every"
        )


def _check_population(study: Study) -> None:
    method, every = study.scheduler.method, study.perturbation_steps
    drawn = {key: draw for key, draw in study.space.items() if draw.grid is None}
    if len(drawn) < len(study.space) or len(study.model_sizes) > 1:
        raise ValueError(
            f"scheduler: {method} moves networks between trials: give one model size, and no grids (a choice "
            "does)"
        )
    if not drawn:
        raise ValueError(
            f"scheduler: {method} has nothing to change: give a setting in space a range or choice"
        )
    for key in drawn:
        if key.startswith(_FIXED):
            raise ValueError(
                f"{key}: scheduler: {method} moves networks and replay between trials, which have to agree "
                "on it: vary it in a study without"
            )
    if study.trials() < 2:
        raise ValueError(f"scheduler: {method} needs several trials: set num_samples to 4 or more")
    if every < study.evaluation.every:
        raise ValueError(
            f"scheduler.every: {every:,} steps are less than evaluation.every ({study.evaluation.every:,}): "
            "trials would be judged twice by one evaluation"
        )
    if method == "pb2":
        for key, draw in drawn.items():
            if draw.uniform is None and draw.loguniform is None:
                raise ValueError(
                    f"{key}: scheduler: pb2 changes ranges alone: give it [low, high], or use pbt"
                )
