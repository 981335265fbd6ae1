"""An update whose loss or gradient is not finite changes nothing that is learned."""

import copy

import pytest
import torch

from tdmpc_ray.core.agents.tdmpc2.config import MODEL_SIZES, UpdateConfig
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.batch import Batch


def batch_of(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(4, 8, 5, generator=generator)
    action = torch.rand(3, 8, 2, generator=generator) * 2 - 1
    return Batch(obs, action, torch.randn(3, 8, 1, generator=generator), torch.zeros(3, 8, 1))


def learned(updater: Updater) -> dict[str, torch.Tensor]:
    """Everything but the target heads, which go on towards the online ones."""
    state = {name: x for name, x in updater.model.state_dict().items() if not name.startswith("target_q")}
    for kind, optimizer in (("world", updater.world_optimizer), ("pi", updater.pi_optimizer)):
        for index, values in optimizer.state_dict()["state"].items():
            state |= {f"{kind}.{index}.{name}": x for name, x in values.items()}
    return {name: x.clone() for name, x in state.items()} | {"scale": updater.scale.clone()}


@pytest.mark.parametrize(("part", "bad"), [("reward", float("nan")), ("obs", float("inf"))])
def test_a_bad_batch_leaves_networks_and_optimizers_bitwise_alone(part: str, bad: float) -> None:
    torch.manual_seed(0)
    updater = Updater(WorldModel((5,), 2, MODEL_SIZES["tiny"]), UpdateConfig(batch_size=8), 0.99)
    noise = UpdateNoise.sample(updater.model, 3, 8, torch.Generator().manual_seed(0))
    for seed in range(3):
        assert updater.step(batch_of(seed), noise)["skipped"] == 0
    before = learned(updater)
    broken = batch_of(3)
    getattr(broken, part)[1, 2] = bad
    assert updater.step(broken, noise)["skipped"] == 1
    after = learned(updater)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    twin = copy.deepcopy(updater.model)
    assert updater.step(batch_of(4), noise)["skipped"] == 0
    assert not all(map(torch.equal, twin.parameters(), updater.model.parameters()))
    assert all(x.isfinite().all() for x in updater.model.parameters())
