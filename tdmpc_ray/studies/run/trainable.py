"""What runs a study's trials."""

from __future__ import annotations

from typing import Any

from ray import tune

from tdmpc_ray.errors import UserError, reason
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.plan.configure import MakeEnvConfig, algorithm_config, checked_configs, env_configs


def trainable_and_fixed(
    study: Study, trainable: type[tune.Trainable] | None
) -> tuple[type[tune.Trainable], dict[str, Any], MakeEnvConfig]:
    """What runs the trials, what is the same in all of their configs, and what their environments need.

    Args:
        study: whose trials.
        trainable: see `run_study`.

    Raises:
        UserError: RLlib refuses the study.
    """
    if trainable is not None:
        return trainable, {"preset": study.preset}, lambda task: {"task": task}
    from tdmpc_ray.rllib import TDMPC2

    try:
        checked_configs(study)
    except ValueError as error:
        raise UserError(f"RLlib refuses this study: {reason(error)}") from None
    return TDMPC2, algorithm_config(study).to_dict(), env_configs(study)
