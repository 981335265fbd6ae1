"""Trackers beside MLflow, by `tracking.also`: Tune's own callbacks, given our metrics over agent steps.

Tune itself would hand them RLlib's whole result, over iterations.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.logger import TBXLoggerCallback
from ray.tune.result import TRAINING_ITERATION

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.spec import Study

Params = Callable[[dict[str, Any]], Mapping[str, Any]]


def check_loggers(names: Sequence[str]) -> None:
    """Refuse what could not be logged to.

    Raises:
        UserError: a package or a login is missing.
    """
    if "wandb" not in names:
        return
    if importlib.util.find_spec("wandb") is None:
        raise UserError("tracking.also: wandb is not installed: pip install 'tdmpc-ray[wandb]'")
    from ray.air.integrations.wandb import _set_api_key

    try:
        _set_api_key()
    except ValueError:
        raise UserError(
            "tracking.also: wandb has no API key: set WANDB_API_KEY, WANDB_MODE=offline, or run `wandb login`"
        ) from None


def make_loggers(study: Study, spool_dir: Path, trial_params: Params, label: Params) -> list[tune.Callback]:
    """The callbacks that the study asks for.

    Args:
        study: with `tracking.also`.
        spool_dir: where its tracker keeps the key of its run.
        trial_params: a trial's config to its parameters.
        label: a trial's config to the part of them that names it.
    """
    found: list[tune.Callback] = []
    if "tensorboard" in study.tracking.also:
        found.append(EventFiles())
    if "wandb" in study.tracking.also:
        from tdmpc_ray.studies.run.wandb_logger import WandB  # late: wandb is an extra

        found.append(WandB(study, spool_dir, trial_params, label))
    return found


class EventFiles(TBXLoggerCallback):
    """TensorBoard's event files, in each trial's folder."""

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        steps, report = int(result.get("env_steps", 0)), result.get("report") or {}
        evaluation = evaluation_of(report)
        rest = {name: value for name, value in report.items() if name not in evaluation}
        # An evaluation beside the training tells of networks that are some steps old.
        for step, values in ((int(result.get("evaluated_at", steps)), evaluation), (steps, rest)):
            if values:
                super().log_trial_result(iteration, trial, {**values, TRAINING_ITERATION: step})


def evaluation_of(report: Mapping[str, float]) -> dict[str, float]:
    """The part of a report that tells of an evaluation."""
    return {name: value for name, value in report.items() if name.startswith("eval/")}
