"""What a random policy gets: the least that learning has to beat."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ray import tune

from tdmpc_ray.studies.tracking.callback import MLflowTracker
from tdmpc_ray.studies.tracking.naming import short_task
from tdmpc_ray.studies.tracking.study_run import RANDOM_RETURN

BASELINE_FILE = "baseline.json"
EPISODES = 5


def random_baselines(
    tasks: Sequence[str], out: Path, say: Callable[[str], None], timeout_s: float | None = None
) -> dict[str, float]:
    """The random policy's mean return on each task, measured once per study's folder `out`.

    Args:
        timeout_s: see `GuardedEnv`.

    Raises:
        UserError: an environment that cannot be built, or not be played.
    """
    file = out / BASELINE_FILE
    returns = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    from tdmpc_ray.envs import random_return

    for task in tasks:
        if task not in returns:
            returns[task] = random_return(task, EPISODES, 0, timeout_s)
            say(f"a random policy's return on {short_task(task)}: {fmean(returns[task]):.1f}")
            written = file.with_suffix(".tmp")  # a kill leaves the file whole or away
            written.write_text(json.dumps(returns), encoding="utf-8")
            written.replace(file)
    return {task: fmean(returns[task]) for task in tasks}


class LogBaseline(tune.Callback):
    """Adds the random policy's returns to the study's run, once that exists: comes after the tracker.

    At every start of the study, because an earlier process may have died before MLflow heard of it.
    """

    def __init__(self, tracker: MLflowTracker, returns: Mapping[str, float]) -> None:
        self._tracker = tracker
        self._returns = returns

    def setup(self, *args: Any, **info: Any) -> None:
        alone = len(self._returns) == 1
        named = {RANDOM_RETURN if alone else f"{RANDOM_RETURN}/{t}": v for t, v in self._returns.items()}
        self._tracker.study_run.log_metrics(named)
