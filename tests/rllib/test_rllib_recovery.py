"""Env runners whose processes are killed."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from counting_env import CountingEnv

from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2, TDMPC2Config
from tdmpc_ray.rllib.loop.env_runners import AsyncSampler

pytestmark = pytest.mark.usefixtures("local_ray")
for name in ("counting_env", __name__):
    ray.cloudpickle.register_pickle_by_value(sys.modules[name])


def config_of(overrides: dict[str, Any], **settings: Any) -> TDMPC2Config:
    config = TDMPC2Config().environment(CountingEnv)
    overrides = {**overrides, "model.episodic": False, "data.seed_steps": 50, "planner.method": "policy"}
    config.training(
        model_size="tiny",
        overrides=overrides,
        episode_length=12,
        steps_per_iteration=100,
        max_time_s_per_iteration=3.0,
        **settings,
    )
    return config.debugging(seed=0, log_level="ERROR")


def pids(runners: Any) -> dict[int, int]:
    """Of the runners in service."""
    return dict(
        runners.foreach_env_runner(lambda runner: (runner.worker_index, os.getpid()), local_env_runner=False)
    )


def added(algo: TDMPC2) -> int:
    return algo.link.call(lambda learner: learner.replay.transitions_added)


@pytest.mark.parametrize(
    ("asynchronous", "num_learners"),
    [(True, 0), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((False, 0), (True, 1)))],
)
def test_a_killed_runner_comes_back_and_loses_its_last_fragment_at_most(
    asynchronous: bool, num_learners: int, tiny_overrides: dict[str, Any]
) -> None:
    config = config_of(tiny_overrides, asynchronous=asynchronous).learners(num_learners=num_learners)
    algo = config.env_runners(num_env_runners=2, rollout_fragment_length=5).build_algo()
    deadline = time.monotonic() + 250
    try:
        while algo.grad_updates < 100:
            algo.train()
        killed = pids(algo.env_runner_group)[1]
        os.kill(killed, signal.SIGKILL)
        before = algo.env_steps
        result = algo.train()
        notes = result["notes"]
        while pids(algo.env_runner_group).get(1, killed) == killed:
            assert time.monotonic() < deadline
            result = algo.train()
            notes += result["notes"]
        assert algo.env_steps > before  # the other one went on
        assert result["lost_fragments"] <= 1
        counted = algo.env_steps
        while algo.env_steps < counted + 100:
            assert time.monotonic() < deadline
            notes += algo.train()["notes"]
        assert notes == ["env runner 1 had died and is back"]
        assert algo.progress.counters.runner_restarts == 1
        weights = algo.env_runner_group.foreach_env_runner(
            lambda runner: int(runner.module.grad_updates), local_env_runner=False
        )
        assert len(weights) == 2
        assert min(weights) > algo.grad_updates - 200  # not those that it was built with
        restarts = algo.env_runner_group.foreach_env_runner(
            lambda runner: (runner.worker_index, runner._restarts), local_env_runner=False
        )
        assert dict(restarts) == {1: 1, 2: 0}  # so that it draws other random numbers than before
        assert algo.progress.counters.lost_fragments <= 1
        assert added(algo) >= algo.env_steps
    finally:
        algo.stop()


def test_fragments_that_wait_for_the_learner_outlive_their_runner(tiny_overrides: dict[str, Any]) -> None:
    config = config_of(tiny_overrides, asynchronous=True)
    algo = config.env_runners(num_env_runners=1, rollout_fragment_length=5).build_algo()
    sampler = AsyncSampler(algo.env_runner_group)
    deadline, sampled = time.monotonic() + 60, []
    try:
        while len(sampled) < 4:
            assert time.monotonic() < deadline
            sampler.request(5, room=1000, remaining=1000, weights=None)
            ray.wait(sampler.refs(), timeout=1.0)
            sampled += sampler.ready()
        os.kill(pids(algo.env_runner_group)[1], signal.SIGKILL)
        time.sleep(1.0)
        fragments = [fragment for one in sampled for fragment in ray.get(one.fragments, timeout=30)]
        assert sum(len(fragment.action) for fragment in fragments) == 5 * len(sampled)
        assert all(isinstance(one.fragments, ray.ObjectRef) for one in sampled)
    finally:
        algo.stop()


@pytest.mark.slow
def test_all_runners_killed_is_a_pause(tiny_overrides: dict[str, Any]) -> None:
    algo = config_of(tiny_overrides).env_runners(num_env_runners=1).build_algo()
    deadline = time.monotonic() + 250
    try:
        algo.train()
        (pid,) = pids(algo.env_runner_group).values()
        os.kill(pid, signal.SIGKILL)
        before = algo.env_steps + 300
        while algo.env_steps < before:
            assert time.monotonic() < deadline
            started = time.monotonic()
            algo.train()
            assert time.monotonic() - started < 20
    finally:
        algo.stop()


def test_a_killed_evaluation_runner_costs_no_evaluation(tiny_overrides: dict[str, Any]) -> None:
    """The last one neither: no later iteration would make up for it."""
    config = config_of(tiny_overrides, eval_every=100, total_steps=300)
    config.evaluation(evaluation_duration=2, evaluation_num_env_runners=1)
    algo = config.build_algo()
    evaluated = []
    try:
        while algo.env_steps < 300 or algo.progress.pace.updates_owed():
            if algo.env_steps >= 200 or len(evaluated) == 1:
                for pid in pids(algo.eval_env_runner_group).values():
                    os.kill(pid, signal.SIGKILL)
            result = algo.train()
            if "eval/return" in result["report"]:
                evaluated.append(algo.env_steps)
    finally:
        algo.stop()
    assert evaluated[-1] == 300


class Licensed(CountingEnv):
    """Only one process can build it."""

    def __init__(self, config: dict[str, Any]) -> None:
        mark = Path(config["mark"])
        if mark.exists() and mark.read_text() != str(os.getpid()):
            raise OSError("the licence is in use")
        mark.write_text(str(os.getpid()))
        super().__init__({})


def test_a_runner_that_cannot_be_built_again_ends_the_run(
    tmp_path: Path, tiny_overrides: dict[str, Any]
) -> None:
    config = config_of(tiny_overrides).environment(Licensed, env_config={"mark": tmp_path / "mark"})
    algo = config.env_runners(num_env_runners=1).build_algo()
    algo.train()
    os.kill(pids(algo.env_runner_group)[1], signal.SIGKILL)
    with pytest.raises(UserError, match=r"^task 'Licensed' cannot be built: OSError: the licence is in use"):
        train(algo, 200)
    algo.stop()


class Crashing(CountingEnv):
    def step(self, action: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_runners_that_only_die_end_the_run(tiny_overrides: dict[str, Any]) -> None:
    config = config_of(tiny_overrides).environment(Crashing).env_runners(num_env_runners=2)
    algo = config.fault_tolerance(num_consecutive_env_runner_failures_tolerance=3).build_algo()
    with pytest.raises(UserError, match=r"env runners have died \d times without bringing a step"):
        train(algo, 200)
    algo.stop()


def train(algo: TDMPC2, iterations: int) -> None:
    for _ in range(iterations):
        algo.train()
