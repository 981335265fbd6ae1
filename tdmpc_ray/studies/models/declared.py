"""What the checkpoints of a run are judged by: what its study, its Tuner or its task declares."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tdmpc_ray.errors import reason
from tdmpc_ray.rllib.checkpoints.foreign_pickle import read_foreign
from tdmpc_ray.rllib.metrics.report import EVALUATION
from tdmpc_ray.studies.file.files import STUDY_FILE
from tdmpc_ray.studies.file.load import load_study
from tdmpc_ray.studies.file.record import read_record

_TUNER_FILE = "tuner.pkl"  # Tune's, in the folder of an experiment
_IN_RESULTS = ("latest/", "report/")  # before `eval/...`, in what Tune is given
_RLLIBS = "evaluation/env_runners/"
_log = logging.getLogger(__name__)


class Goal(NamedTuple):
    """What is compared, such as `eval/return`, and whether the smaller one is the better one."""

    metric: str
    is_minimized: bool = False


def declared_goal(checkpoint: Path, out: Path | None, own: Mapping[str, Any]) -> Goal:
    """What decides between a checkpoint and the others of its run.

    Without a declaration, as of an environment that no catalog knows: success where it was measured.

    Args:
        checkpoint: one of the run.
        out: the folder of its study, if it is of one.
        own: what the algorithm has saved in it.
    """
    if out is not None:
        record = read_record(out)  # needs none of the study's tasks, which may not be installed here
        return Goal(load_study(out / STUDY_FILE).score if record is None else record.metric)
    measured = "eval/success" if "eval/success" in own.get("latest", {}) else "eval/return"
    return _of_tuner(checkpoint.parent.parent / _TUNER_FILE) or Goal(own.get("metric") or measured)


def _of_tuner(file: Path) -> Goal | None:
    """What `tune.TuneConfig` declares; None: there is none, it declares none, or none that was evaluated."""
    if not file.is_file():
        return None
    try:
        config = read_foreign(file)[0]["_tune_config"]
        key, mode = config.metric, config.mode
    except Exception as error:  # Tune's own file, of whatever version
        _log.warning("%s is not read, the task's metric decides: %s", file, reason(error))
        return None
    if key is None:
        return None
    metric = next((key.removeprefix(place) for place in _IN_RESULTS if key.startswith(f"{place}eval/")), None)
    metric = metric or EVALUATION.get(key.removeprefix(_RLLIBS) if key.startswith(_RLLIBS) else "")
    if metric is None:
        _log.warning("the Tuner's metric %s is of no evaluation: the task's decides", key)
        return None
    return Goal(metric, mode == "min")
