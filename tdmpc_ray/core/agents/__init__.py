"""The agents, a folder each: the rest of the house knows `agent.Agent` only, and finds them here by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tdmpc_ray.errors import UserError, reason, unknown

if TYPE_CHECKING:
    from tdmpc_ray.core.agent_settings import AgentSettings
    from tdmpc_ray.core.agents.agent import Agent

NAMES = ("tdmpc2", "tdmpc", "bmpc")
DEFAULT_AGENT = NAMES[0]


def find_settings(name: str) -> AgentSettings:
    """What an agent declares of its settings, without its networks and so without PyTorch.

    Args:
        name: one of `NAMES`, or `module:OBJECT` for an `Agent` of one's own that every process can import.

    Raises:
        UserError: there is no such agent.
    """
    if name in NAMES:
        return importlib.import_module(f"{__name__}.{name}.config").SETTINGS
    return find_agent(name).settings


def find_agent(name: str) -> Agent:
    """The agent itself; otherwise as `find_settings`."""
    if name in NAMES:
        return importlib.import_module(f"{__name__}.{name}.agent").AGENT
    module, colon, attribute = name.partition(":")
    if not colon:
        raise unknown("algorithm", name, NAMES)
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"cannot import algorithm '{name}': {reason(error)}") from None
    from tdmpc_ray.core.agents.agent import Agent

    if not isinstance(found, Agent):
        raise UserError(
            f"algorithm '{name}' is no agent: name an object of a subclass of core.agents.agent.Agent"
        )
    return found
