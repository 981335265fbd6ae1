"""Networks of one task out of those of several give out the same."""

import pytest
import torch
from torch import Tensor

from tdmpc_ray.core.agents import find_agent
from tdmpc_ray.core.agents.tdmpc2.agent import AGENT
from tdmpc_ray.core.agents.tdmpc2.config import ModelConfig
from tdmpc_ray.core.agents.tdmpc2.one_task import of_one_task
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.errors import UserError

CFG = ModelConfig(enc_dim=16, mlp_dim=16, latent_dim=16, simnorm_dim=8, num_q=3, task_dim=6, episodic=True)
OBS, ACTIONS = 5, (2, 3)


@pytest.fixture
def several() -> WorldModel:
    """Of two tasks; one embedding is longer than what networks are told, and nothing is zero."""
    torch.manual_seed(0)
    model = WorldModel((OBS,), max(ACTIONS), CFG, action_dims=ACTIONS).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
        assert model.task_embedding is not None
        model.task_embedding[0].mul_(5.0)
    return model


def of_task(several: WorldModel, shares: Tensor, obs_dim: int, action_dim: int) -> WorldModel:
    one = WorldModel((obs_dim,), action_dim, CFG).eval()
    one.load_state_dict(of_one_task(several.state_dict(), shares, obs_dim, action_dim))
    return one


def centred(x: Tensor) -> Tensor:
    return x - x.mean()


@pytest.mark.parametrize("task", [0, 1])
def test_every_part_gives_out_the_same(several: WorldModel, task: int) -> None:
    size = ACTIONS[task]
    one = of_task(several, torch.eye(2)[task], OBS, size)
    told = several.task(torch.full((7,), task))
    obs, action, eps = torch.randn(7, OBS), torch.randn(7, size), torch.randn(7, size)
    wide = [torch.nn.functional.pad(x, (0, max(ACTIONS) - size)) for x in (action, eps)]
    z, heads = several.encode(obs, told), torch.tensor([0, 2])
    pairs = [
        (one.encode(obs), z),
        (one.next(z, action), several.next(z, wide[0], told)),
        (one.reward_logits(z, action), several.reward_logits(z, wide[0], told)),
        (one.termination_logit(z), several.termination_logit(z, told)),
        (one.pi(z, eps).action, several.pi(z, wide[1], told).action[:, :size]),
        (one.pi(z, eps).mean, several.pi(z, wide[1], told).mean[:, :size]),
        # Numbers that the task has not add a constant to the entropy, as published; it has no gradient.
        (centred(one.pi(z, eps).scaled_entropy), centred(several.pi(z, wide[1], told).scaled_entropy)),
        *(
            (
                one.q_logits(z, action, heads, target=target),
                several.q_logits(z, wide[0], heads, told, target=target),
            )
            for target in (False, True)
        ),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_mean_lies_between_and_other_sizes_are_cut_or_zero(several: WorldModel) -> None:
    one = of_task(several, torch.tensor([0.5, 0.5]), OBS + 2, 4)
    embedding = several.task(torch.tensor([0, 1])).embedding.mean(0)
    assert torch.allclose(
        one.dynamics[0].bias, several.dynamics[0].bias + several.dynamics[0].weight[:, 16:22] @ embedding
    )
    assert one.encoder[0].weight[:, OBS:].abs().sum() == 0 == one.dynamics[0].weight[:, 16 + 3 :].abs().sum()
    mean, log_std = one.policy[2].bias.chunk(2)
    assert (mean[3], log_std[3]) == (0, 0)
    assert torch.equal(torch.cat([mean[:3], log_std[:3]]), several.policy[2].bias)
    assert of_task(several, torch.eye(2)[0], 3, 1).encoder[0].weight.shape == (16, 3)


def test_agents_without_sets_and_images_say_so() -> None:
    images = AGENT.make_networks((9, 64, 64), 2, CFG)
    with pytest.raises(UserError, match="for vectors, not for images"):
        AGENT.of_one_task({}, torch.ones(1), images)
    with pytest.raises(UserError, match="'tdmpc' makes no networks of one task"):
        find_agent("tdmpc").of_one_task({}, torch.ones(1), images)
