"""The update learns what it should, and the same seed gives the same bits."""

from typing import Any

import numpy as np
import pytest
import torch

from tdmpc_ray.core.agents.tdmpc2.config import ModelConfig, UpdateConfig
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.replay.sequences import SequenceReplay

SMALL = {"enc_dim": 32, "mlp_dim": 32, "latent_dim": 16, "num_q": 2}
LENGTH, DISCOUNT = 5, 0.5


def one_hot_episodes(terminated: bool) -> SequenceReplay:
    """Episodes of 5 steps that pay 1 a step; the observation is the step as a one-hot vector."""
    replay = SequenceReplay(1000, (LENGTH + 1,), 1, horizon=1)
    rng = np.random.default_rng(0)
    for episode in range(100):
        replay.add(
            str(episode),
            0,
            np.eye(LENGTH + 1, dtype=np.float32),
            rng.uniform(-1, 1, (LENGTH, 1)).astype(np.float32),
            np.ones(LENGTH, np.float32),
            terminated=terminated,
            done=True,
        )
    return replay


def train(replay: SequenceReplay, num_updates: int, **settings: Any) -> WorldModel:
    torch.manual_seed(0)
    model = WorldModel((LENGTH + 1,), 1, ModelConfig(**SMALL, **settings))
    updater = Updater(
        model, UpdateConfig(lr=3e-3, enc_lr_scale=1.0, tau=0.1, consistency_coef=1, value_coef=1), DISCOUNT
    )
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for _ in range(num_updates):
        updater.step(replay.sample(32, rng), UpdateNoise.sample(model, 1, 32, generator))
    return model.eval()


@pytest.mark.parametrize("terminated", [False, True])
@pytest.mark.parametrize("settings", [{}, {"simnorm_dim": 0}, {"num_bins": 1}], ids=str)
def test_truncation_bootstraps_and_termination_does_not(terminated: bool, settings: dict[str, int]) -> None:
    model = train(one_hot_episodes(terminated), 600, episodic=terminated, **settings)
    with torch.no_grad():
        z = model.encode(torch.eye(LENGTH + 1)[:LENGTH])
        value = model.q(z, torch.zeros(len(z), 1), torch.tensor([0, 1])).mean(0).squeeze(-1)
    # The last observation is never followed by a step, so the truncated task is bootstrapped from what the
    # network says there; the rewards say the same everywhere, and so does it: 1 / (1 - 0.5) = 2.
    steps_left = torch.arange(LENGTH, 0, -1)
    expected = (1 - DISCOUNT**steps_left) / (1 - DISCOUNT) if terminated else torch.full((LENGTH,), 2.0)
    assert (value[-1] - expected[-1]).abs() < 0.25, value  # 1 against 2: the case that tells them apart
    assert (value - expected).abs().max() < 0.4, value
    if terminated:
        with torch.no_grad():
            ends = torch.sigmoid(model.termination_logit(model.next(z, torch.zeros(len(z), 1))))
        assert ends[-1] > 0.9
        assert ends[:-1].max() < 0.1


def test_same_seed_same_bits() -> None:
    replay = one_hot_episodes(terminated=True)
    one, two = (train(replay, 50, episodic=True).state_dict() for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)
