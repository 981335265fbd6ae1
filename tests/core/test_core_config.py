"""Settings that were saved with an agent."""

import pytest

from tdmpc_ray.core.config import AgentConfig, agent_config
from tdmpc_ray.errors import UserError


def test_settings_survive_being_saved() -> None:
    agent = agent_config("tiny", "light", {"update.lr": 1e-3})
    assert AgentConfig.from_dict(agent.to_dict()) == agent


def test_a_setting_of_another_version_is_named() -> None:
    saved = agent_config("tiny").to_dict()
    saved["planner"]["enabled"] = True
    with pytest.raises(
        UserError, match=r"no setting 'planner\.enabled': another version of tdmpc_ray wrote it"
    ):
        AgentConfig.from_dict(saved)
