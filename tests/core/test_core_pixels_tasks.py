"""Images, and several tasks: what the recorded numbers do not show."""

from dataclasses import replace

import pytest
import torch

from tdmpc_ray.core.agents.tdmpc2.config import MODEL_SIZES, UpdateConfig
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import agent_config
from tdmpc_ray.core.nn.pixels import MAX_SHIFT, shift_images
from tdmpc_ray.core.planners import PlanNoise
from tdmpc_ray.core.saved_agent import AgentDescription, PlanningAgent


def test_a_shift_moves_the_image_and_repeats_its_edge() -> None:
    images = torch.randint(256, (2, 3, 2, 8, 8), dtype=torch.uint8)
    shift = torch.tensor([[[3, -2], [0, 0], [-3, 3]], [[1, 1], [-1, 0], [2, -3]]])
    moved = shift_images(images, shift)
    assert moved.dtype == torch.uint8
    for i in range(2):
        for j in range(3):
            down, right = shift[i, j].tolist()
            for y in range(8):
                for x in range(8):
                    source = images[i, j, :, min(max(y - down, 0), 7), min(max(x - right, 0), 7)]
                    assert torch.equal(moved[i, j, :, y, x], source)


@pytest.mark.parametrize("size", ["tiny", "1", "5", "19"])
def test_every_model_size_reads_images(size: str) -> None:
    cfg = agent_config(size).model
    model = WorldModel((9, 64, 64), 2, cfg).eval()
    z = model.encode(torch.randint(256, (2, 3, 9, 64, 64), dtype=torch.uint8))
    assert z.shape == (2, 3, cfg.latent_dim)
    torch.testing.assert_close(z.unflatten(-1, (-1, 8)).sum(-1), torch.ones(2, 3, cfg.latent_dim // 8))
    assert (model.encoder.projection is None) == (MODEL_SIZES[size].latent_dim == 512)


def test_an_update_shifts_its_images() -> None:
    agent = agent_config("tiny", overrides={"model.dropout": 0.0})
    model = WorldModel((9, 64, 64), 2, agent.model)
    noise = UpdateNoise.sample(model, 3, 16, torch.Generator().manual_seed(0))
    assert noise.shift is not None
    assert noise.shift.shape == (4, 16, 2)
    assert set(noise.shift.unique().tolist()) == set(range(-MAX_SHIFT, MAX_SHIFT + 1))

    batch = Batch(
        torch.randint(256, (4, 16, 9, 64, 64), dtype=torch.uint8),
        torch.rand(3, 16, 2),
        torch.rand(3, 16, 1),
        torch.zeros(3, 16, 1),
    )
    moved = shift_images(batch.obs, noise.shift)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    ours = Updater(model, agent.update, 0.99).step(batch, noise)
    model.load_state_dict(state)
    unmoved = UpdateNoise(noise.target_eps, noise.target_heads, noise.pi_eps, noise.pi_heads)
    by_hand = Updater(model, agent.update, 0.99).step(batch._replace(obs=moved), unmoved)
    assert ours == by_hand


@pytest.mark.parametrize("method", ["mppi", "gradient", "policy"])
def test_images_shift_while_acting_where_that_is_asked_for(method: str) -> None:
    agents = [
        agent_config("tiny", overrides={"planner.method": method, "planner.shift_images": shifts})
        for shifts in (False, True)
    ]
    model = WorldModel((9, 64, 64), 2, agents[0].model).eval()
    still, moved = (
        PlanNoise.sample(model, agent.planner, 40, torch.Generator().manual_seed(0)) for agent in agents
    )
    assert still.shift is None
    assert moved.shift is not None
    assert moved.shift.shape == (40, 2)
    assert (moved.shift.min(), moved.shift.max()) == (-MAX_SHIFT, MAX_SHIFT)
    assert torch.equal(still.explore, moved.explore)
    vectors = WorldModel((5,), 2, agents[1].model)
    assert PlanNoise.sample(vectors, agents[1].planner, 3, torch.Generator()).shift is None

    obs = torch.randint(256, (2, 9, 64, 64), dtype=torch.uint8)
    settings = agents[1].to_dict()
    description = AgentDescription(settings, (9, 64, 64), 2, 0.99, None)
    agent = PlanningAgent(description, agents[1], model)
    by_hand = PlanningAgent(description, agents[0], model)
    noises = [agent.noise(agent.generator()), agent.noise(torch.Generator().manual_seed(7))]
    shift = torch.cat([x.shift for x in noises if x.shift is not None])
    acted, _ = agent.decide(obs, agent.no_plan(2), noises)
    noises = [replace(x, shift=None) for x in noises]
    expected, _ = by_hand.decide(shift_images(obs, shift), agent.no_plan(2), noises)
    assert torch.equal(acted, expected)


def multitask() -> tuple[WorldModel, Batch]:
    model = WorldModel((5,), 3, agent_config("tiny").model, action_dims=[3, 1])
    task_id = torch.tensor([0, 1] * 8)
    batch = Batch(
        torch.randn(4, 16, 5),
        torch.rand(3, 16, 3) * model.action_masks[task_id],
        torch.rand(3, 16, 1),
        torch.zeros(3, 16, 1),
        task_id,
    )
    return model, batch


def test_embeddings_are_learned_and_stay_bounded() -> None:
    model, batch = multitask()
    assert model.task_embedding is not None
    model.task_embedding.data *= 1000
    updater = Updater(model, UpdateConfig(lr=0.3), [0.99, 0.9])
    before = model.task(torch.tensor([0, 1])).embedding.detach().clone()
    for seed in range(2):
        updater.step(batch, UpdateNoise.sample(model, 3, 16, torch.Generator().manual_seed(seed)))
    after = model.task(torch.tensor([0, 1])).embedding.detach()
    assert (after.norm(dim=-1) <= 1 + 1e-6).all()
    assert not torch.allclose(before, after, atol=1e-2)


def test_the_policy_loss_does_not_move_embeddings() -> None:
    model, batch = multitask()
    cfg = UpdateConfig(consistency_coef=0.0, reward_coef=0.0, value_coef=0.0)
    updater = Updater(model, cfg, [0.99, 0.9])
    policy, embedding = model.policy[1].weight.detach().clone(), model.task_embedding.detach().clone()
    updater.step(batch, UpdateNoise.sample(model, 3, 16, torch.Generator()))
    assert not torch.equal(model.policy[1].weight, policy)
    assert torch.equal(model.task_embedding, embedding)


def test_each_task_needs_a_discount_and_each_sequence_a_task() -> None:
    model, batch = multitask()
    with pytest.raises(ValueError, match="2 tasks need as many discounts"):
        Updater(model, UpdateConfig(), 0.99)
    with pytest.raises(ValueError, match="needs the ids"):
        model.task(None)
    assert WorldModel((5,), 2, agent_config("tiny").model).task(batch.task) is None
