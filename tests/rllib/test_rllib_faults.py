"""Environments that fail under RLlib: rebuilt alone, counted, and no part of what is learned from."""

import math
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import ray
from failing_env import FailingEnv
from gymnasium.spaces import Box
from ray.rllib.env.env_context import EnvContext

from tdmpc_ray.envs.faults import FAULTS
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2, TDMPC2Config
from tdmpc_ray.rllib.acting.task_env import env_creator
from tdmpc_ray.rllib.evaluation.on_runners import _play
from tdmpc_ray.rllib.loop.fault_window import FaultWindow

pytestmark = pytest.mark.usefixtures("local_ray")
for name in ("failing_env", __name__):
    ray.cloudpickle.register_pickle_by_value(sys.modules[name])


def config_of(overrides: dict[str, Any], num_runners: int = 0, **env_config: Any) -> TDMPC2Config:
    config = TDMPC2Config().environment(FailingEnv, env_config=env_config)
    config.training(
        model_size="tiny",
        overrides={**overrides, "model.episodic": False, "data.seed_steps": 40, "planner.method": "policy"},
        episode_length=10,
        steps_per_iteration=100,
        max_time_s_per_iteration=5.0,
    )
    config.env_runners(num_env_runners=num_runners, num_envs_per_env_runner=3, rollout_fragment_length=7)
    return config.debugging(seed=0, log_level="ERROR")


def rows(algo: TDMPC2) -> dict[str, np.ndarray]:
    """Of the replay: observation, action and reward of each transition, and its next observation."""

    def read(learner: Any) -> dict[str, np.ndarray]:
        replay = learner.replay
        (at,) = np.nonzero(replay.next_row[: len(replay)] >= 0)
        return {"obs": replay.obs[at], "reward": replay.reward[at], "next": replay.obs[replay.next_row[at]]}

    return algo.link.call(read)


def train(algo: TDMPC2, iterations: int) -> None:
    for _ in range(iterations):
        algo.train()


@pytest.mark.parametrize(
    ("kind", "num_runners"),
    [
        *(("raise", 0), ("nan", 0), ("sleep", 0), ("raise", 1)),
        *(pytest.param(kind, 1, marks=pytest.mark.slow) for kind in ("nan", "sleep")),
    ],
)
def test_a_fault_is_counted_and_nothing_of_it_is_stored(
    kind: str, num_runners: int, tmp_path: Path, tiny_overrides: dict[str, Any]
) -> None:
    config = config_of(tiny_overrides, num_runners, kind=kind, step=4, once=tmp_path / "once")
    algo = config.fault_tolerance(env_step_timeout_s=0.5).build_algo()
    try:
        said: list[str] = []
        while algo.env_steps < 200:
            result = algo.train()
            said += result["notes"]
        assert [re.sub(r"step 4: .*", "step 4", line) for line in said] == [
            "an environment was rebuilt: task 'FailingEnv', step 4"
        ]
        stored = rows(algo)
        assert result["env_faults"] == result["report"]["time/env_faults"] == 1
        assert result["lost_fragments"] == 0
        assert len(stored["obs"]) == algo.env_steps
        # Every transition is one of the environment's: a step further in the same episode, with its reward.
        assert (stored["next"][:, 0] == stored["obs"][:, 0]).all()
        assert (stored["next"][:, 1] == stored["obs"][:, 1] + 1).all()
        assert (stored["reward"] == stored["next"][:, 1]).all()
        # The cut episode is in no mean.
        assert result["report"]["train/episode_length"] == 10
        assert result["report"]["train/return"] == 55
        path = algo.save_to_path(str(tmp_path / "checkpoint"))
        algo.progress.counters.env_faults = 0
        algo.restore_from_path(path)
        assert algo.progress.counters.env_faults == 1
    finally:
        algo.stop()


@pytest.mark.parametrize("num_runners", [0, 1])
def test_too_many_faults_stop_the_run(num_runners: int, tiny_overrides: dict[str, Any]) -> None:
    algo = config_of(tiny_overrides, num_runners, kind="raise", step=5).build_algo()
    with pytest.raises(UserError) as caught:
        train(algo, 50)
    algo.stop()
    pattern = (
        r"1\d faults of environments within [\d,]+ agent steps, more than max_env_faults=10: mend the "
        r"environment, or raise the limit; the last one: task 'FailingEnv', step 5: RuntimeError: the motor "
        r"is hot \(failing_env.py:\d+\)"
    )
    assert re.fullmatch(pattern, str(caught.value)), caught.value


def test_of_many_faults_a_few_are_told() -> None:
    window = FaultWindow(100)
    window.add(["a", "b"], 10)
    window.add(["c", "d", "e"], 10)
    told = [*(f"an environment was rebuilt: {fault}" for fault in "abc"), "and 2 more were rebuilt"]
    assert (window.lines(), window.lines()) == (told, [])


def test_a_limit_of_none_stops_at_the_first(tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
    config = config_of(tiny_overrides, kind="raise", step=5, once=tmp_path / "once")
    algo = config.fault_tolerance(max_env_faults=0).build_algo()
    with pytest.raises(UserError, match="1 fault of environments within"):
        train(algo, 5)
    algo.stop()


def test_what_never_gets_better_ends_the_run_at_once(tiny_overrides: dict[str, Any]) -> None:
    algo = config_of(tiny_overrides, 1, kind="shape", step=5).build_algo()
    with pytest.raises(UserError, match=r"^task 'FailingEnv', step 5: the observation has shape \(1,\)"):
        train(algo, 20)
    algo.stop()


def test_an_evaluation_plays_cut_episodes_again(tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
    config = config_of(tiny_overrides, kind="nan", step=4, episode=1)  # the second of every environment built
    config.evaluation(evaluation_interval=1, evaluation_duration=4, evaluation_num_env_runners=0)
    algo = config.fault_tolerance(max_env_faults=1000).build_algo()
    try:
        for _ in range(2):
            evaluated = algo.train()["report"]
            assert evaluated["eval/episode_length"] == 10
            assert evaluated["eval/return"] == 55
        assert algo.progress.counters.env_faults > 0
    finally:
        algo.stop()


class Marked(FailingEnv):
    """Its return tells where an episode started."""

    mark = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        start = super().reset(seed=seed)
        self.mark = int(self.np_random.integers(10**6))
        return start

    def _played(self) -> tuple[Any, Any]:
        obs, reward = super()._played()
        return obs, reward + (self.mark if self._step == 1 else 0)


def test_evaluations_never_play_an_episode_twice(tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
    config = config_of(tiny_overrides, kind="nan", step=4, once=tmp_path / "once").environment(Marked)
    config.evaluation(evaluation_interval=1, evaluation_duration=4, evaluation_num_env_runners=0)
    algo = config.build_algo()
    try:
        played = [_play(algo.eval_env_runner_group.local_env_runner, 4) for _ in range(2)]
    finally:
        algo.stop()
    assert [len(faults) for _, _, faults in played] == [1, 0]
    returns = [value for outcomes, _, _ in played for value, _, _ in outcomes]
    assert len(set(returns)) == 8


def test_an_environment_of_ones_own_that_never_ends_is_named() -> None:
    def endless(context: EnvContext) -> gymnasium.Env:
        return gymnasium.make("Pendulum-v1").unwrapped

    env = env_creator(endless, None, 20)(EnvContext({}, worker_index=0))
    env.reset()
    for _ in range(19):
        assert FAULTS not in env.step(np.zeros(1))[-1]
    *_, truncated, info = env.step(np.zeros(1))
    assert truncated
    assert "step 20: the episode goes on after its 20 steps" in info[FAULTS][0]


def test_an_evaluation_that_is_always_cut_ends_the_run(tiny_overrides: dict[str, Any]) -> None:
    config = config_of(tiny_overrides).evaluation(
        evaluation_interval=1,
        evaluation_duration=2,
        evaluation_config={"env_config": {"kind": "nan", "step": 4}, "explore": False},
    )
    algo = config.build_algo()
    with pytest.raises(UserError, match=r"cut every episode.*task 'FailingEnv', step 4: number 0"):
        algo.train()
    algo.stop()


@pytest.mark.parametrize("library", ["CDLL", pytest.param("PyDLL", marks=pytest.mark.slow)])
def test_a_hang_in_c_costs_the_runner_and_is_named(
    library: str, tmp_path: Path, tiny_overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray starts the runner again, and that tells what its predecessor died of."""
    config = config_of(tiny_overrides, 2, kind=library, step=4, once=tmp_path / "once")
    algo = config.fault_tolerance(env_step_timeout_s=0.7).build_algo()
    algo.env_runner_group.foreach_env_runner(_short_grace, local_env_runner=False)
    faults = []
    count = algo.progress.count_faults
    monkeypatch.setattr(
        algo.progress, "count_faults", lambda new, steps: faults.extend(new) or count(new, steps)
    )
    deadline = time.monotonic() + 250
    try:
        while not faults:
            assert time.monotonic() < deadline
            result = algo.train()
        result = algo.train()
        assert (result["env_faults"], result["lost_fragments"]) == (1, 1)
        place = (
            r"task 'FailingEnv', step 4: hung" if library == "CDLL" else r"holds Python's .*failing_env.py"
        )
        assert re.search(place + r".*; its env runner was restarted$", faults[0]), faults
    finally:
        algo.stop()


def _short_grace(runner: Any) -> None:
    from tdmpc_ray.envs import watchdog

    watchdog.GRACE_S = 4.0  # a process that hardly gets the processor must not be taken for one that hangs


class NoLicence(gymnasium.Env):
    def __init__(self, config: dict[str, Any]) -> None:
        self.observation_space, self.action_space = Box(-1, 1, (2,)), Box(-1, 1, (1,))
        if config.worker_index == 2 or config.get("all"):
            raise OSError("no licence")


@pytest.mark.parametrize("env_config", [{}, {"all": True}])
def test_a_runner_that_cannot_be_built_says_why(
    env_config: dict[str, Any], tiny_overrides: dict[str, Any]
) -> None:
    config = config_of(tiny_overrides, 2).environment(NoLicence, env_config=env_config)
    with pytest.raises(UserError, match=r"^task 'NoLicence' cannot be built: OSError: no licence \(test_rl"):
        config.build_algo()


class Local:
    """As something of a module that the other processes do not have."""

    def __reduce__(self) -> Any:
        return _import, (os.getpid(),)


def _import(pid: int) -> Local:
    if os.getpid() != pid:
        raise ModuleNotFoundError("No module named 'my_robot'")
    return Local()


def test_a_class_that_runners_do_not_know_says_so(tiny_overrides: dict[str, Any]) -> None:
    config = config_of(tiny_overrides, 1, arm=Local())
    with pytest.raises(UserError, match=r"^an env runner cannot be built: .*No module named 'my_robot'$"):
        config.build_algo()


def test_a_learner_that_cannot_be_built_says_why(tiny_overrides: dict[str, Any]) -> None:
    overrides = {**tiny_overrides, "data.demonstrations": "/nowhere", "data.demonstration_share": 0.5}
    config = config_of(tiny_overrides).training(overrides=overrides).learners(num_learners=1)
    with pytest.raises(UserError, match=r"^[^\n]*/nowhere[^\n]*$"):
        config.build_algo()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_env_faults": -1}, "max_env_faults must be a whole number, 0 or more, not -1"),
        (
            {"env_step_timeout_s": math.inf},
            "env_step_timeout_s must be a number of seconds, or None, not inf",
        ),
        ({"restart_failed_sub_environments": True}, "does not read 'restart_failed_sub_environments'"),
        ({"env_runner_health_probe_timeout_s": 5}, "does not read 'env_runner_health_probe_timeout_s'"),
    ],
)
def test_bad_limits_are_refused(
    settings: dict[str, Any], message: str, tiny_overrides: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=message):
        config_of(tiny_overrides).fault_tolerance(**settings).validate()
