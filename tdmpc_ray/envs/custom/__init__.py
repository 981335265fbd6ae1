"""The tasks that TD-MPC2 adds to the domains of the DeepMind Control Suite (paper, appendix on environments).

One module per domain; each has `TASKS`, from task names to functions that build them. Rewards lie in [0, 1].
Checked against the states recorded in `tests/fixtures/dmcontrol_tasks`.
"""

from __future__ import annotations

import importlib

import numpy as np
from dm_control.rl.control import Environment


def load(domain: str, task: str, random: np.random.RandomState) -> Environment:
    """Build a task, e.g. `load("cheetah", "jump", random)`; it draws its episode starts from `random`."""
    return importlib.import_module(f"{__name__}.{domain}").TASKS[task](random)
