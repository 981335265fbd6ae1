"""What a random policy gets: the least that learning has to beat."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from ray import tune

from tdmpc_ray.studies.study_run import RANDOM_RETURN
from tdmpc_ray.studies.tracking import MLflowTracker

BASELINE_FILE = "baseline.json"
EPISODES = 5


def random_baseline(task: str, out: Path, say: Callable[[str], None]) -> float:
    """The random policy's mean return, measured once per study's folder `out`."""
    file = out / BASELINE_FILE
    if file.exists():
        return fmean(json.loads(file.read_text(encoding="utf-8"))["returns"])
    from tdmpc_ray.envs import random_return

    returns = random_return(task, EPISODES, seed=0)
    say(f"a random policy's return on {task}: {fmean(returns):.1f}")
    written = file.with_suffix(".tmp")  # a kill leaves the file whole or away
    written.write_text(json.dumps({"task": task, "returns": returns}), encoding="utf-8")
    written.replace(file)
    return fmean(returns)


class LogBaseline(tune.Callback):
    """Adds the random policy's return to the study's run, once that exists: comes after the tracker.

    At every start of the study, because an earlier process may have died before MLflow heard of it.
    """

    def __init__(self, tracker: MLflowTracker, value: float) -> None:
        self._tracker = tracker
        self._value = value

    def setup(self, *args: Any, **info: Any) -> None:
        self._tracker.study_run.log_metrics({RANDOM_RETURN: self._value})
