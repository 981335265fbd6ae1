"""What learning runs have to reach: means of the recorded ones in docs/data, less what seeds differ by."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from pathlib import Path

import pandas as pd

DATA = Path(__file__).parents[2] / "docs" / "data"
SEEDS = [1, 2, 3]


def late(curves: pd.DataFrame) -> list[float]:
    """Of each seed the mean evaluation from two thirds of the steps on.

    Args:
        curves: columns seed, env_steps and value, of one study and task.
    """
    curves = curves[curves.env_steps >= curves.env_steps.max() * 2 / 3]
    return curves.groupby("seed").value.mean().tolist()


def recorded(study: str, task: str | None = None) -> pd.DataFrame:
    """The curves of a study on the results page.

    Args:
        study: its name or, of the light preset beside the published code, its label.
        task: which one, of a study with several.
    """
    light = pd.read_csv(DATA / "light_tdmpc_ray.csv")
    light = light.rename(columns={"agent_steps": "env_steps", "eval_return": "value"})
    curves = pd.concat([pd.read_csv(DATA / "curves.csv"), light])
    curves = curves[curves.study == study]
    curves = curves if task is None else curves[curves.task == task]
    assert curves.task.nunique() == 1, study
    return curves


def least(values: Sequence[float], num_seeds: int = len(SEEDS)) -> float:
    """What the mean over new seeds falls below in one of forty cases, were nothing worse.

    Args:
        values: one per recorded seed; fewer than three are taken to spread as those of the light preset do.
        num_seeds: that are new.
    """
    mean = sum(values) / len(values)
    spread = float(pd.Series(values).std()) if len(values) > 2 else mean * relative_spread()
    return mean - 2 * spread * sqrt(1 / len(values) + 1 / num_seeds)


def relative_spread() -> float:
    """Standard deviation of seeds over their mean, pooled over the recorded studies of three seeds."""
    light = pd.read_csv(DATA / "light_tdmpc_ray.csv")
    groups = [late(recorded(*key)) for key, _ in light.groupby(["study", "task"])]
    squares = [(pd.Series(g).std() / pd.Series(g).mean()) ** 2 for g in groups if len(g) > 2]
    return float(sqrt(sum(squares) / len(squares)))
