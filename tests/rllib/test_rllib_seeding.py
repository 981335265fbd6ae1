"""Random streams: none is drawn twice, by whichever run, worker or purpose, nor again after a restart."""

import itertools
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from counting_env import CountingEnv

from tdmpc_ray.core.config import agent_config
from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.rllib.acting.env_runner import RESTARTS, AgentEnvRunner
from tdmpc_ray.rllib.acting.module import AgentModule
from tdmpc_ray.rllib.acting.seeding import Stream, derive
from tdmpc_ray.rllib.learning.random_streams import RandomStreams

SEEDS = [0, 1, 2, 3, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**64]
PROGRESS = [(), (0,), (0, 0), (1,), (0, 1), (1, 0), (2**32,)]


def test_no_two_streams_begin_alike() -> None:
    streams = list(itertools.product(SEEDS, range(12), Stream, PROGRESS))
    begun = [derive(seed, worker, stream, *progress) for seed, worker, stream, progress in streams]
    assert len(set(begun)) == len(streams)
    # The CPU's generator reads half of it, and environments another half: some meet by chance, not by design.
    for half in (lambda number: number % 2**32, lambda number: number >> 33):
        assert len(set(map(half, begun))) > len(streams) - 10


def drawn_by(overrides: dict[str, Any], seed: int, worker: int, **state: int) -> dict[str, float]:
    """The first number of each stream of an env runner; 1,000 and more: of one that evaluates."""
    config = TDMPC2Config().environment(CountingEnv).training(model_size="tiny", overrides=overrides)
    config.training(episode_length=12).debugging(seed=seed, log_level="ERROR")
    if worker >= 1000:
        config.in_evaluation = True
    runner = AgentEnvRunner(config=config, worker_index=worker % 1000)
    runner.set_state(state)
    module, reset = runner.module.unwrapped(), runner.env.reset
    seen: dict[str, float] = {}

    def spy(**kwargs: Any) -> Any:
        seen.update(python=random.random(), numpy=np.random.rand(), torch=float(torch.rand(())))
        seen["environment"] = float(kwargs["seed"])
        return reset(**kwargs)

    runner.env.reset = spy
    (episode, *_) = runner.sample(num_timesteps=1, explore=True)
    seen["action"] = float(episode.get_actions(0)[0])  # a random one: nothing has been learned
    seen["plan"] = float(module._generator.initial_seed())
    runner.stop()
    return seen


@pytest.mark.usefixtures("local_ray")
def test_runners_of_any_run_draw_apart(tiny_overrides: dict[str, Any]) -> None:
    runners = [
        (0, 1, {}),
        (0, 2, {}),
        (1, 1, {}),
        (0, 1001, {}),
        (0, 1, {RESTARTS: 1}),
        (0, 1, {RESTARTS: 2}),
    ]
    seen = [drawn_by(tiny_overrides, seed, worker, **state) for seed, worker, state in runners]
    for name in ("environment", "python", "numpy", "torch", "action", "plan"):
        assert len({one[name] for one in seen}) == len(runners), name
    assert drawn_by(tiny_overrides, 0, 2) == seen[1]


@pytest.mark.usefixtures("local_ray")
def test_a_runner_in_the_learners_process_leaves_torchs_stream_alone(tiny_overrides: dict[str, Any]) -> None:
    config = TDMPC2Config().environment(CountingEnv).training(model_size="tiny", overrides=tiny_overrides)
    runner = AgentEnvRunner(config=config.training(episode_length=12).debugging(seed=0), worker_index=0)
    before = torch.get_rng_state()
    runner.sample(num_timesteps=1)
    runner.stop()
    assert torch.equal(torch.get_rng_state(), before)


def test_streams_of_learners_differ() -> None:
    cpu, before = torch.device("cpu"), torch.get_rng_state()
    firsts: list[float] = []
    try:
        for seed, rank in [(0, 0), (0, 1), (1, 0), (1, 1)]:
            replicas: Any = SimpleNamespace(rank=rank, equalize=lambda tensors: None)
            streams = RandomStreams(seed, cpu, replicas if rank else None)
            firsts += [float(torch.rand(())), float(torch.rand((), generator=streams.torch))]
            firsts += [streams.numpy.random(dtype=np.float32)]
        torch.manual_seed(0)  # the networks
        assert len({*firsts, float(torch.rand(()))}) == len(firsts) + 1
    finally:
        torch.set_rng_state(before)


def test_heads_are_drawn_alike_by_all_learners_and_anew_by_each_update_and_run() -> None:
    cpu, before = torch.device("cpu"), torch.get_rng_state()

    def heads(seed: int, rank: int, update: int) -> float:
        replicas: Any = SimpleNamespace(rank=rank, equalize=lambda tensors: None)
        return float(torch.rand((), generator=RandomStreams(seed, cpu, replicas).of_heads(update)))

    try:
        assert heads(3, 0, 7) == heads(3, 1, 7)
        assert len({heads(seed, 0, update) for seed in range(4) for update in range(4)}) == 16
    finally:
        torch.set_rng_state(before)


def test_a_loaded_agent_of_a_seeded_run_repeats(tiny_overrides: dict[str, Any]) -> None:
    agent, env = agent_config("tiny", overrides=tiny_overrides).to_dict(), CountingEnv({})

    def first_seed(seed: int | None) -> int:
        config = {"agent": agent, "discount": 0.9, "seed": seed}
        spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
        return AgentModule(**spaces, model_config=config).draw_seed()

    assert first_seed(0) == first_seed(0)
    assert len({first_seed(seed) for seed in (0, 1, None, None)}) == 4
