"""The short way from observations to the module and back, beside RLlib's own pieces."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.spaces.space_utils import clip_action, unsquash_action

from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.rllib.acting.connectors import ActionArrays, ObservationTensor


class Doubles(gymnasium.Env):
    """As many environments are: observations in float64, actions with bounds of their own."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Box(np.float32([0.0, -3.0]), np.float32([4.0, -1.0]))

    def __init__(self, config: Any = None) -> None:
        self.taken: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        return np.zeros(2), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.taken.append(action)
        return np.ones(2), 0.0, False, False, {}


def build(space: Box = Doubles.action_space, connector: Any = None, **settings: Any) -> Any:
    config = TDMPC2Config().environment(Doubles, **settings)
    if connector is not None:
        config.env_runners(env_to_module_connector=connector)
    spaces = {"__env_single__": (Doubles.observation_space, space)}
    return config.build_module_to_env_connector(spaces=spaces), config.build_env_to_module_connector(
        spaces=spaces, device=torch.device("cpu")
    )


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("space", [Doubles.action_space, Box(-np.inf, np.inf, (2,), np.float32)])
def test_actions_are_scaled_as_rllib_scales_them(normalize: bool, clip: bool, space: Box) -> None:
    pipeline, _ = build(space, normalize_actions=normalize, clip_actions=clip)
    (piece,) = pipeline.connectors
    assert isinstance(piece, ActionArrays)
    actions = torch.tensor([[-1.0, 0.25], [0.7, 1.0], [2.0, -9.0]])
    batch = pipeline(rl_module=None, batch={Columns.ACTIONS: actions}, episodes=[], explore=True)
    np.testing.assert_array_equal(batch[Columns.ACTIONS], actions)
    for ours, given in zip(batch[Columns.ACTIONS_FOR_ENV], actions.numpy(), strict=True):
        theirs = given
        if normalize:
            theirs = unsquash_action(given, space)
        elif clip:
            theirs = clip_action(given, space)
        np.testing.assert_array_equal(ours, theirs)
    batch[Columns.ACTIONS_FOR_ENV][:] = 7.0  # an environment may write into what it is given
    np.testing.assert_array_equal(batch[Columns.ACTIONS], actions)


def test_observations_become_one_tensor_of_floats() -> None:
    _, pipeline = build()
    assert isinstance(pipeline.connectors[0], ObservationTensor)
    episodes = [SingleAgentEpisode(observations=[np.full(2, n / 3)]) for n in range(3)]
    batch = pipeline(rl_module=None, batch={}, episodes=episodes, explore=True)
    expected = torch.tensor([[0.0] * 2, [1 / 3] * 2, [2 / 3] * 2])
    torch.testing.assert_close(batch[Columns.OBS], expected, rtol=0, atol=0)
    images = SingleAgentEpisode(observations=[np.full((9, 64, 64), 200, np.uint8)])
    (batch,) = [ObservationTensor()(batch={}, episodes=[images])]
    assert batch[Columns.OBS].dtype == torch.uint8


class Halved(ConnectorV2):
    def __call__(self, *, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        batch[Columns.OBS] = batch[Columns.OBS] / 2
        return batch


def test_connectors_of_ones_own_keep_rllib_s_pieces() -> None:
    there, back = build(connector=lambda *args, **kwargs: Halved())
    assert not isinstance(there.connectors[0], ActionArrays)
    assert any(isinstance(piece, Halved) for piece in back.connectors)
    assert not any(isinstance(piece, ObservationTensor) for piece in back.connectors)


@pytest.mark.usefixtures("local_ray")
def test_both_ways_run(tiny_overrides: dict[str, Any]) -> None:
    for settings in ({}, {"env_to_module_connector": lambda *args, **kwargs: []}):
        config = TDMPC2Config().environment(Doubles).env_runners(num_envs_per_env_runner=2, **settings)
        config.training(
            model_size="tiny", overrides={**tiny_overrides, "data.seed_steps": 40}, episode_length=20
        )
        algo = config.training(steps_per_iteration=60).debugging(seed=0, log_level="ERROR").build_algo()
        try:
            while algo.grad_updates < 50:
                algo.train()
            stored = algo.learner_group._learner.replay.action[:40]
            taken = np.array(algo.env_runner.env.unwrapped.envs[0].unwrapped.taken)
            assert np.abs(stored).max() <= 1
            assert (taken >= Doubles.action_space.low).all()
            assert (taken <= Doubles.action_space.high).all()
            assert np.ptp(taken[:, 0]) > 2
        finally:
            algo.stop()
