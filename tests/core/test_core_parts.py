"""Parts of the networks that learn, and parts that do not."""

from __future__ import annotations

import pytest
import torch

from tdmpc_ray.core.agents import find_agent
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import agent_config
from tdmpc_ray.errors import UserError

AGENT, HORIZON, SIZE = find_agent("tdmpc2"), 3, 16
FIRST = (
    "encoder.0.bias",
    "dynamics.0.bias",
    "reward_head.0.bias",
    "policy.0.bias",
    "termination_head.0.bias",
)


def changed(train: str, action_dims: list[int] | None = None) -> set[str]:
    """Names of parameters that two updates have changed, those of targets left out."""
    overrides = {"update.train": train, "update.batch_size": SIZE, "model.episodic": True}
    cfg = agent_config("tiny", overrides=overrides)
    torch.manual_seed(0)
    networks = AGENT.make_networks((4,), 2, cfg.model, action_dims=action_dims)
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    before = {name: x.clone() for name, x in networks.named_parameters()}
    discount = [0.9] * len(action_dims) if action_dims else 0.9
    optimizers = AGENT.make_optimizers(networks, cfg.update)
    updater = AGENT.make_updater(networks, cfg.update, discount, optimizers, None)
    rng = torch.Generator().manual_seed(0)
    shapes = (HORIZON + 1, SIZE, 4), (HORIZON, SIZE, 2), (HORIZON, SIZE, 1)
    obs, action, reward = (torch.randn(shape, generator=rng) for shape in shapes)
    task = torch.arange(SIZE) % len(action_dims) if action_dims else None
    batch = Batch(obs, action.clamp(-1, 1), reward, torch.zeros_like(reward), task)
    for _ in range(2):
        metrics = updater.step(batch, AGENT.draw_update(networks, HORIZON, SIZE, rng))
        assert metrics["skipped"] == 0
    after = dict(networks.named_parameters())
    return {name for name, x in before.items() if not torch.equal(x, after[name]) and "target_q" not in name}


@pytest.mark.parametrize(
    ("train", "begins"),
    [
        ("policy", ("policy.",)),
        ("encoder", ("encoder.",)),
        ("value+reward", ("q_ensemble.", "reward_head.")),
        ("dynamics+termination", ("dynamics.", "termination_head.")),
        ("embedding", (*FIRST, "q_ensemble.layers.0.bias")),
        ("policy+embedding", ("policy.", *FIRST, "q_ensemble.layers.0.bias")),
    ],
)
def test_only_the_named_parts_learn(train: str, begins: tuple[str, ...]) -> None:
    everything = changed("")
    assert changed(train) == {name for name in everything if name.startswith(begins)}


def test_the_embedding_of_a_set_learns_alone() -> None:
    assert changed("embedding", [2, 1]) == {"task_embedding"}
    assert "task_embedding" not in changed("policy", [2, 1])


def test_other_names_are_refused() -> None:
    with pytest.raises(UserError, match=r"update\.train"):
        agent_config("tiny", overrides={"update.train": "policy+head"})
