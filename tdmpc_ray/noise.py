"""What Ray says about itself, silenced."""

from __future__ import annotations

import logging
import os
import sys

_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a header at any verbosity
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the end of a study, and a Tuner's results, have them
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_LOGGERS = ("tune", "train", "rllib", "dashboard", "widgets", "_private.runtime_env", "_common.deprecation")


def quiet() -> None:
    """Silence what Ray says about itself in this process; call it before Ray is started."""
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    if not sys.stdout.isatty():
        os.environ.setdefault("RAY_COLOR_PREFIX", "0")
    import ray  # noqa: F401  # it sets its loggers' levels when it is imported

    for name in _LOGGERS:
        logging.getLogger(f"ray.{name}").setLevel(logging.CRITICAL)


def quiet_jobs() -> None:
    """Likewise, what Ray's client for jobs says of its uploads; it turns itself up when it is imported."""
    import ray.job_submission  # noqa: F401

    for part in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{part}").setLevel(logging.ERROR)
