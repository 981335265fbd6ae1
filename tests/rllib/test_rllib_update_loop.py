"""Updates in a row and acting: neither reads the device, and what was reported comes with `read`."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from device_guard import META, MetaGenerator, allow_optimizers, device_guard
from tiny import TINY

from tdmpc_ray.core.agents.tdmpc2.update import Updater
from tdmpc_ray.core.config import AgentConfig, agent_config
from tdmpc_ray.core.replay.prioritized import make_replay
from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.rllib.acting import env_runner
from tdmpc_ray.rllib.acting.module import IS_FIRST, AgentModule
from tdmpc_ray.rllib.learning import updates as update_loop
from tdmpc_ray.rllib.learning.random_streams import RandomStreams
from tdmpc_ray.rllib.learning.updates import UpdateLoop

STATE, IMAGES = (5,), (9, 64, 64)


def make_module(agent: AgentConfig, shape: tuple[int, ...], **more: Any) -> AgentModule:
    is_image = len(shape) == 3
    obs = gymnasium.spaces.Box(0, 255, shape, np.uint8 if is_image else np.float32)
    model_config = {"agent": agent.to_dict(), "discount": 0.9, "seed": 0, **more}
    action = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    return AgentModule(observation_space=obs, action_space=action, model_config=model_config)


def make_loop(
    shape: tuple[int, ...] = STATE, device: torch.device | None = None, **settings: Any
) -> tuple[UpdateLoop, AgentModule]:
    """A loop on episodes of 20 random steps."""
    agent = agent_config("tiny", overrides={**TINY, "data.capacity": 500, **settings})
    torch.manual_seed(0)
    module = make_module(agent, shape).to(device or torch.device("cpu"))
    rng = np.random.default_rng(0)
    replay = make_replay(agent.data, shape, 2, 3, 3 if len(shape) == 3 else 1)
    for episode in range(4):
        obs = rng.integers(255, size=(21, *shape)).astype(np.uint8 if len(shape) == 3 else np.float32)
        action, reward = rng.uniform(-1, 1, (20, 2)), rng.uniform(0, 1, 20)
        replay.add(str(episode), 0, obs, action, reward, terminated=False, done=True)
    streams = RandomStreams(0, torch.device("cpu"), None)
    if device is not None:
        streams.torch = MetaGenerator()
    updater = Updater(module.networks, agent.update, 0.9)
    return UpdateLoop(module, updater, replay, None, streams, agent.update.batch_size, None), module


@pytest.mark.parametrize(("alpha", "ahead"), [(0.0, False), (0.0, True), (0.6, False)])
@pytest.mark.parametrize("shape", [STATE, IMAGES])
def test_updates_do_not_read_the_device(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], alpha: float, ahead: bool
) -> None:
    allow_optimizers(monkeypatch)
    loop, module = make_loop(shape, META, **{"data.priority_alpha": alpha})
    loop._draws_ahead = ahead
    with device_guard(monkeypatch) as waited:
        loop.run(3)
        loop.run(1)
    assert module.num_updates == 4
    assert len(waited) == (4 if alpha else 0)  # each for the step before, or for the last of a call


@pytest.mark.parametrize("explore", [False, True])
@pytest.mark.parametrize("tasks", [False, True])
def test_acting_does_not_read_the_device(monkeypatch: pytest.MonkeyPatch, explore: bool, tasks: bool) -> None:
    more: dict[str, Any] = {"discount": [0.9, 0.95], "action_dims": [2, 1]} if tasks else {}
    module = make_module(agent_config("tiny", overrides=TINY), STATE, **more).to(META)
    module.count_updates(1)
    module._generator = MetaGenerator()
    ids = torch.empty(3, device=META, dtype=torch.int64) if tasks else None
    batch = {
        "obs": torch.empty(3, *STATE, device=META),
        IS_FIRST: torch.empty(3, device=META, dtype=torch.bool),
        "beginning": ["a", None, "b"],
        **({"task": ids} if tasks else {}),
    }
    forward = module.forward_exploration if explore else module.forward_inference
    with device_guard(monkeypatch):
        for _ in range(2):
            assert forward(batch)["actions"].device == META


def test_losses_are_read_together() -> None:
    apart, module = make_loop(**{"model.dropout": 0.0})
    together, _ = make_loop(**{"model.dropout": 0.0})
    totals = []
    for _ in range(4):
        apart.run(1)
        totals.append(apart.read())
    together.run(3)
    together.run(1)
    losses = together.read()
    assert (losses.num_updates, losses.num_skipped, module.num_updates) == (4, 0, 4)
    mean = np.mean([one.means["loss/total"] for one in totals])
    assert losses.means["loss/total"] == pytest.approx(mean, rel=1e-5)
    assert together.read() == update_loop.Losses({}, 0, 0)


def test_a_shared_network_follows_without_a_copy() -> None:
    loop, learning = make_loop()
    acting = make_module(learning.cfg, STATE)
    acting.share_networks(learning)
    loop.run(2)
    acting.share_networks(learning)
    assert (acting.num_updates, int(acting.grad_updates)) == (2, 2)
    ours, theirs = acting.state_dict(), learning.state_dict()
    assert all(torch.equal(x, theirs[name]) for name, x in ours.items())
    assert ours["networks.policy.0.weight"].data_ptr() == theirs["networks.policy.0.weight"].data_ptr()


def test_a_runner_beside_the_learner_acts_on_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env_runner, "get_device", lambda config, gpus: META if gpus else torch.device("cpu"))
    config = TDMPC2Config().environment("walker-walk").training(model_size="tiny", overrides=TINY)
    cpu = torch.device("cpu")
    for num_learners, gpus, device in ((0, 1, META), (0, 0, cpu), (1, 1, cpu)):
        config.learners(num_learners=num_learners, num_gpus_per_learner=gpus)
        runner = env_runner.AgentEnvRunner(config=config, worker_index=0)
        assert {x.device for x in runner.module.state_dict().values()} == {device}
        runner.stop()
