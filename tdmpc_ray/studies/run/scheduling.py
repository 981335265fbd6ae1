"""Which trials of a study go on: Tune's schedulers, in agent steps and by the newest evaluation.

Each holds its trials once the study is asked to stop (see `interrupt`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    HyperBandScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.draws import Draw
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.run.interrupt import HoldOnStop, Scheduler

STEPS = "env_steps"
OVERRIDES = "agent_overrides"


def make_scheduler(study: Study) -> TrialScheduler:
    """Tune's scheduler for a study.

    Raises:
        UserError: it needs a package that is not installed.
    """
    said = study.scheduler
    judged: dict[str, Any] = {"metric": study.score_key, "mode": "max"}
    if said.method == "asha":
        return Asha(
            time_attr=STEPS,
            max_t=study.most_steps,
            grace_period=study.grace_steps,
            reduction_factor=said.reduction,
            **judged,
        )
    if said.method == "hyperband":
        return HyperBand(study.most_steps, study.grace_steps, reduction_factor=said.reduction, **judged)
    if not said.is_population:
        return Scheduler()
    population: dict[str, Any] = {
        **judged,
        "time_attr": STEPS,
        "perturbation_interval": study.perturbation_steps,
        "quantile_fraction": said.quantile,
        "require_attrs": False,  # a result without an evaluation yet is no error
        "log_config": False,  # MLflow has what changed
        "custom_explore_fn": WithinBounds(study.space),
    }
    if said.method == "pbt":
        return Population(
            resample_probability=said.resample,
            hyperparam_mutations={OVERRIDES: _mutations(study)},
            **population,
        )
    bounds = {key: list(draw.uniform or draw.loguniform or ()) for key, draw in study.space.items()}
    return _bandit(hyperparam_bounds={OVERRIDES: bounds}, **population)


class Asha(HoldOnStop, AsyncHyperBandScheduler):
    """Successive halving without waiting (Li et al., 2020)."""

    def reached(self) -> list[list[tuple[float, dict[str, float]]]]:
        """Per bracket its rungs: agent steps, and the scores of the trials that were there."""
        return [[(steps, dict(scores)) for steps, scores in b._rungs] for b in self._brackets]

    def take_back(self, reached: list[list[tuple[float, dict[str, float]]]]) -> None:
        """Set what `reached` gave: without it the first trials after a resume would all go on."""
        for bracket, rungs in zip(self._brackets, reached, strict=True):
            for (_, scores), (_, saved) in zip(bracket._rungs, rungs, strict=True):
                scores.update(saved)


class HyperBand(HoldOnStop, HyperBandScheduler):
    """HyperBand (Li et al., 2018). It halves in units of the grace period: a step alone judges nobody."""

    def __init__(self, steps: int, grace_steps: int, **options: Any) -> None:
        super().__init__(time_attr="grace_periods", max_t=math.ceil(steps / grace_steps), **options)
        self._grace_steps = grace_steps

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if self._metric not in result:
            return str(TrialScheduler.CONTINUE)
        result["grace_periods"] = result[STEPS] // self._grace_steps
        return super().on_trial_result(tune_controller, trial, result)


class Population(HoldOnStop, PopulationBasedTraining):
    """Population based training (Jaderberg et al., 2017)."""


def _bandit(**options: Any) -> TrialScheduler:
    try:
        from ray.tune.schedulers.pb2 import PB2

        class Bandit(HoldOnStop, PB2):
            """Population based bandits (Parker-Holder et al., 2020)."""

        return Bandit(**options)
    except (ImportError, RuntimeError):
        raise UserError("scheduler: pb2 needs scikit-learn: pip install scikit-learn") from None


class StopWhenEnough(tune.Stopper):
    """Ends each trial once `enough` gives a reason to; see `Study.enough`."""

    def __init__(self, enough: Callable[[Mapping[str, Any]], str]) -> None:
        self._enough = enough

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return bool(self._enough(result))

    def stop_all(self) -> bool:
        return False


class WithinBounds:
    """Keeps what a population changes within the study's ranges: PBT multiplies without looking."""

    def __init__(self, space: Mapping[str, Draw]) -> None:
        self._bounds = {
            key: bounds
            for key, draw in space.items()
            if (bounds := draw.uniform or draw.loguniform or _whole(draw.randint))
        }

    def __call__(self, config: dict[str, Any]) -> dict[str, Any]:
        settings = config[OVERRIDES]
        for key, (low, high) in self._bounds.items():
            settings[key] = type(settings[key])(min(max(settings[key], low), high))
        return config


def _whole(bounds: tuple[int, int] | None) -> tuple[int, int] | None:
    return None if bounds is None else (bounds[0], bounds[1] - 1)


def _mutations(study: Study) -> dict[str, Any]:
    """PBT steps along a list, and multiplies what is a range."""
    domains = study.draws()
    return {key: study.values(key) if draw.choice else domains[key] for key, draw in study.space.items()}


class KeepRungs(tune.Callback):
    """Saves ASHA's rungs with the study: Tune itself forgets its scheduler when a study is resumed."""

    def __init__(self, scheduler: TrialScheduler) -> None:
        self._scheduler = scheduler if isinstance(scheduler, Asha) else None

    def get_state(self) -> dict[str, Any]:
        return {"rungs": self._scheduler.reached() if self._scheduler else None}

    def set_state(self, state: dict[str, Any]) -> None:
        if self._scheduler and state["rungs"] is not None:
            self._scheduler.take_back(state["rungs"])
