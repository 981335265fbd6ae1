"""Environments that are one object for a whole runner (`VECTOR_ENTRY_POINT`): nothing adapts these."""

from __future__ import annotations

from typing import Any

import numpy as np
import odd_envs
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.rllib.acting.env_runner import AgentEnvRunner

VECTOR = Box(-1, 1, (3,), np.float32)
STACK = Box(0, 255, (9, 64, 64), np.uint8)


class Whole(VectorEnv):
    """Several environments in one; each observes whatever its space has."""

    closed = 0

    def __init__(self, config: Any) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.num_envs = config["num_envs"]
        self.single_observation_space, self.single_action_space = config["sees"], config["does"]
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.actions: list[np.ndarray] = []

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return self.observation_space.sample(), {}

    def step(self, actions: Any) -> Any:
        self.actions.append(actions)
        no = np.zeros(self.num_envs, bool)
        return self.observation_space.sample(), np.ones(self.num_envs), no, no, {}

    def close_extras(self, **kwargs: Any) -> None:
        Whole.closed += 1


def runner(
    overrides: dict[str, Any], sees: Space, does: Space = odd_envs.OwnBounds.action_space
) -> AgentEnvRunner:
    config = TDMPC2Config().environment(Whole, env_config={"sees": sees, "does": does})
    config.training(model_size="tiny", overrides=overrides, episode_length=20)
    config.env_runners(num_envs_per_env_runner=2, gym_env_vectorize_mode="vector_entry_point")
    config.debugging(seed=0, log_level="ERROR").validate()
    return AgentEnvRunner(config=config, worker_index=0)


@pytest.mark.parametrize("sees", [VECTOR, STACK])
def test_what_is_ready_is_played_with_the_environment_s_own_actions(
    sees: Space, tiny_overrides: dict[str, Any]
) -> None:
    built = runner(tiny_overrides, sees)
    episodes = built.sample(num_timesteps=6)
    assert [episode.get_observations().shape for episode in episodes] == [(4, *sees.shape)] * 2  # type: ignore[misc]
    does: Any = odd_envs.OwnBounds.action_space
    own: Any = built.env.unwrapped  # type: ignore[union-attr]
    assert len(own.actions) == 3
    assert all(does.contains(action.astype(does.dtype)) for actions in own.actions for action in actions)
    built.stop()


@pytest.mark.parametrize(
    ("sees", "told"),
    [
        (odd_envs.GoalDict.observation_space, "Dict, which VECTOR_ENTRY_POINT does not adapt: give a vector"),
        (odd_envs.MixedTuple.observation_space, "Tuple, which"),
        (Dict(image=STACK, vector=VECTOR), "Dict, which"),
        (Discrete(3), "Discrete, which"),
        (odd_envs.ByteVector.observation_space, r"Box\(128,\) of uint8, which"),
        (Box(-1, 1, (3,), np.float64), r"Box\(3,\) of float64, which"),
        (Box(-1, 1, (2, 3), np.float32), r"Box\(2, 3\) of float32, which"),
        (odd_envs.OwnPixels.observation_space, r"Box\(84, 84, 3\) of uint8, which"),
        (Box(0, 255, (3, 64, 64), np.uint8), r"Box\(3, 64, 64\) of uint8, which"),
        (odd_envs.FloatImage.observation_space, r"Box\(9, 64, 64\) of float32: give images as bytes"),
    ],
)
def test_what_is_not_ready_is_refused_by_name(
    sees: Space, told: str, tiny_overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Whole, "closed", 0)
    with pytest.raises(UserError, match=rf"^task 'Whole' has observations {told}") as caught:
        runner(tiny_overrides, sees)
    assert "\n" not in str(caught.value)
    assert Whole.closed == 1


def test_actions_are_checked_as_everywhere(tiny_overrides: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^task 'Whole' has unbounded actions"):
        runner(tiny_overrides, VECTOR, odd_envs.UnboundedActions.action_space)


def test_a_task_of_the_catalog_is_no_such_object() -> None:
    config = TDMPC2Config().environment("walker-walk")
    config.env_runners(gym_env_vectorize_mode="vector_entry_point")
    with pytest.raises(UserError, match=r"^task 'walker-walk' is no vector environment: set .*=SYNC"):
        config.validate()
