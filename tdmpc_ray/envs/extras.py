"""Suites that are installed on their own."""

from __future__ import annotations

import importlib.util

from tdmpc_ray.envs.task import TaskInfo
from tdmpc_ray.errors import UserError

# Suite to the module that it needs, and how to install that.
MODULES = {
    "dmcontrol": ("dm_control", "pip install dm_control"),
    "metaworld": ("metaworld", "pip install metaworld"),
    "maniskill": ("mani_skill", "pip install 'tdmpc-ray[maniskill]'"),
    "box2d": ("Box2D", "pip install 'tdmpc-ray[box2d]'"),
    "myosuite": ("myosuite", "pip install 'tdmpc-ray[myosuite]' && pip install --no-deps myosuite==2.11.6"),
}


def missing(suite: str) -> str | None:
    """How to install what a suite needs, or None where it is there."""
    module, command = MODULES[suite]
    return None if importlib.util.find_spec(module) else command


def require_extra(info: TaskInfo) -> None:
    """Refuse a task whose simulator is not installed.

    Raises:
        UserError: says what to install.
    """
    if command := missing(info.suite):
        raise UserError(f"task '{info.name}' needs {info.suite}, which is not installed: {command}")
