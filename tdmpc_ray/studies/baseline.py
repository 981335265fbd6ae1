"""What a random policy gets: the least that learning has to beat."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from tdmpc_ray.studies.study_run import RANDOM_RETURN
from tdmpc_ray.studies.tracking import MLflowTracker

BASELINE_FILE = "baseline.json"
EPISODES = 5


def random_baseline(task: str, out: Path, say: Callable[[str], None]) -> float | None:
    """Measure the random policy's mean return, once per study's folder `out`.

    Returns:
        The mean; None where an earlier process has measured and logged it.
    """
    file = out / BASELINE_FILE
    if file.exists():
        return None
    from tdmpc_ray.envs import random_return

    returns = random_return(task, EPISODES, seed=0)
    mean = sum(returns) / len(returns)
    file.write_text(json.dumps({"task": task, "returns": returns}), encoding="utf-8")
    say(f"a random policy's return on {task}: {mean:.1f}")
    return mean


class LogBaseline(tune.Callback):
    """Adds the random policy's return to the study's run, once that exists: comes after the tracker."""

    def __init__(self, tracker: MLflowTracker, value: float | None) -> None:
        self._tracker = tracker
        self._value = value

    def setup(self, *args: Any, **info: Any) -> None:
        if self._value is not None:
            self._tracker.study_run.log_metrics({RANDOM_RETURN: self._value})
