"""Sampling and learning at once, with real runners and learners."""

import time
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import ray
from counting_env import CountingEnv

from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2, TDMPC2Config

pytestmark = pytest.mark.usefixtures("local_ray")
ray.cloudpickle.register_pickle_by_value(__import__("counting_env"))


class SlowEnv(gymnasium.Wrapper):
    """A robot: each step takes its time."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(CountingEnv(config))
        self.seconds = config.get("seconds", 0.01)

    def step(self, action: Any) -> Any:
        time.sleep(self.seconds)
        return super().step(action)


ray.cloudpickle.register_pickle_by_value(__import__(__name__))


def config_of(overrides: dict[str, Any], env: type = CountingEnv, **settings: Any) -> TDMPC2Config:
    config = TDMPC2Config().environment(env)
    settings = {"episode_length": 12, "steps_per_iteration": 200, "max_time_s_per_iteration": 3.0, **settings}
    overrides = {**overrides, "model.episodic": False, "data.seed_steps": 100, "planner.method": "policy"}
    config.training(model_size="tiny", overrides=overrides, **settings)
    config.env_runners(num_env_runners=2, num_envs_per_env_runner=4, rollout_fragment_length=5)
    return config.debugging(seed=0, log_level="ERROR")


def added(algo: TDMPC2) -> int:
    return algo.link.call(lambda learner: learner.replay.transitions_added)


@pytest.mark.parametrize(
    ("num_learners", "total"),
    [
        (0, 1500),
        pytest.param(1, 1500, marks=pytest.mark.slow),
        pytest.param(0, 10_000, marks=pytest.mark.slow),
        pytest.param(1, 10_000, marks=pytest.mark.slow),
    ],
)
def test_the_ratio_holds_at_every_moment_and_the_run_ends_with_it(
    num_learners: int, total: int, tiny_overrides: dict[str, Any]
) -> None:
    overrides = {**tiny_overrides, "data.utd_ratio": 0.2}
    config = config_of(overrides, total_steps=total, sample_lead=100).learners(num_learners=num_learners)
    algo = config.build_algo()
    waits = []
    while algo.env_steps < total or algo.progress.pace.updates_owed():
        result = algo.train()
        algo._loop.check()
        pace = algo.progress.pace
        assert pace.env_steps <= added(algo)
        assert pace.grad_updates <= pace.random_steps + 0.2 * (pace.env_steps - pace.random_steps) + 1e-9
        if pace.grad_updates > pace.random_steps:
            taken = pace.env_steps - pace.random_steps
            assert taken <= (pace.grad_updates - pace.random_steps) / 0.2 + 100 + 5
        waits.append(result["report"]["perf/learner_waits"] + result["report"]["perf/sampler_waits"])
    # Each of the four requests in flight may end up to three steps late, as vectors have four environments.
    assert total <= algo.env_steps <= total + 12
    assert 100 <= pace.random_steps <= 112
    assert algo.grad_updates == int(pace.random_steps + 0.2 * (algo.env_steps - pace.random_steps))
    assert max(waits) > 0
    algo.stop()


def test_a_fast_learner_waits_and_says_so(tiny_overrides: dict[str, Any]) -> None:
    overrides = {**tiny_overrides, "data.utd_ratio": 0.1}
    algo = config_of(overrides, SlowEnv).build_algo()
    while algo.env_steps < 600:
        report = algo.train()["report"]
    assert report["perf/learner_waits"] > 0.5
    assert report["perf/sampler_waits"] < 0.2
    algo.stop()


def test_no_iteration_waits_for_a_fragment(tiny_overrides: dict[str, Any]) -> None:
    config = config_of(tiny_overrides, SlowEnv, max_time_s_per_iteration=0.2)
    config.environment(SlowEnv, env_config={"seconds": 0.25})
    algo = config.env_runners(num_env_runners=1, num_envs_per_env_runner=1).build_algo()
    algo.train()
    for _ in range(3):
        started = time.monotonic()
        algo.train()
        assert (
            time.monotonic() - started < 1.2 + 0.5
        )  # the loop looks up every second; a fragment takes 1.25 s
    algo.stop()


def test_a_fast_sampler_waits_and_says_so(tiny_overrides: dict[str, Any]) -> None:
    overrides = {**tiny_overrides, "data.utd_ratio": 4.0}
    algo = config_of(overrides, steps_per_iteration=100).learners(num_learners=1).build_algo()
    while algo.env_steps < 300:
        report = algo.train()["report"]
    assert report["perf/sampler_waits"] > 0.5
    assert report["perf/learner_waits"] < 0.2
    algo.stop()


@pytest.mark.parametrize("num_learners", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_checkpoint_in_full_flight_agrees_with_itself(
    num_learners: int, tmp_path: Path, tiny_overrides: dict[str, Any]
) -> None:
    algo = config_of(tiny_overrides).learners(num_learners=num_learners).build_algo()
    while algo.env_steps < 300:
        algo.train()
        algo._loop.check()
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    saved = (algo.env_steps, algo.grad_updates)
    assert saved[0] == added(algo)
    updates = algo.link.call(lambda learner: int(learner._rl_module.grad_updates))
    assert saved[1] == updates
    while algo.env_steps < 500:
        result = algo.train()
    assert result["spent"]["env_steps"] == result["env_steps"], "those that came while it was saved, too"
    algo.restore_from_path(path)
    assert (algo.env_steps, algo.grad_updates) == saved
    assert added(algo) == saved[0]
    while algo.env_steps < 500:
        algo.train()
    algo.save_to_path(path)
    assert algo.env_steps == added(algo)
    algo.stop()


@pytest.mark.parametrize("num_learners", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_runners_get_new_weights_every_so_many_updates(
    num_learners: int, tiny_overrides: dict[str, Any]
) -> None:
    config = config_of(tiny_overrides, weights_every=40).learners(num_learners=num_learners)
    algo = config.build_algo()
    while algo.grad_updates < 400:
        algo.train()
    deadline = time.monotonic() + 60
    while True:  # they are under way
        held = algo.env_runner_group.foreach_env_runner(
            lambda runner: int(runner.module.grad_updates), local_env_runner=False
        )
        if min(held) >= algo.grad_updates - 40 - algo.config.updates_per_call or time.monotonic() > deadline:
            break
        algo.train()
    assert all(algo.grad_updates - 40 - algo.config.updates_per_call <= h <= algo.grad_updates for h in held)
    algo.stop()


def test_runners_of_a_run_that_begins_with_networks_learn_too(
    tmp_path: Path, tiny_overrides: dict[str, Any]
) -> None:
    """They act by its networks at once, and know newer ones though its own updates count from 0."""
    first = config_of(tiny_overrides, asynchronous=False).env_runners(num_env_runners=0).build_algo()
    while first.grad_updates < 200:
        first.train()
    had = first.grad_updates
    checkpoint = first.save_to_path(tmp_path / "checkpoint")
    first.stop()
    algo = config_of(tiny_overrides, start_from=checkpoint, weights_every=20).build_algo()
    try:
        while algo.grad_updates < 120:
            report = algo.train()["report"]
        held = algo.env_runner_group.foreach_env_runner(
            lambda runner: int(runner.module.grad_updates), local_env_runner=False
        )
        assert all(had < updates <= had + algo.grad_updates for updates in held)
        assert 0 <= report["perf/weights_age"] <= algo.grad_updates
    finally:
        algo.stop()


def test_asynchronous_needs_runners(tiny_overrides: dict[str, Any]) -> None:
    config = config_of(tiny_overrides, asynchronous=True).env_runners(num_env_runners=0)
    with pytest.raises(UserError, match=r"asynchronous=True needs remote env runners"):
        config.validate()
    assert not config_of(tiny_overrides, asynchronous=False).is_asynchronous
    assert config_of(tiny_overrides).lead == 2 * 2 * 20
