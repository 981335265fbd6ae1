"""Evaluation beside the training."""

import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest

from tdmpc_ray.rllib import TDMPC2, TDMPC2Config
from tdmpc_ray.rllib.acting import stop_request
from tdmpc_ray.rllib.evaluation import on_runners as evaluation
from tdmpc_ray.rllib.metrics.activity import activities

EVERY = 100


def build(overrides: dict[str, Any], steps: int, runners: int = 1) -> TDMPC2:
    config = TDMPC2Config().environment("gym:Pendulum-v1")
    config.training(
        model_size="tiny",
        overrides={**overrides, "data.seed_steps": 100},
        steps_per_iteration=20,
        eval_every=EVERY,
        total_steps=steps,
    )
    config.evaluation(evaluation_num_env_runners=runners, evaluation_duration=2)
    return config.debugging(seed=0, log_level="ERROR").build_algo()


@pytest.mark.usefixtures("local_ray")
class TestBackground:
    def test_training_goes_on_meanwhile(self, tiny_overrides: dict[str, Any]) -> None:
        algo = build(tiny_overrides, steps=10**6)
        evaluated: dict[int, int] = {}
        deadline = time.monotonic() + 240
        try:
            while len(evaluated) < 2:
                assert time.monotonic() < deadline
                result = algo.train()
                if "eval/return" in result["report"]:
                    evaluated[result["evaluated_at"]] = result["env_steps"]
                    assert result["report"]["eval/episode_length"] == 200
        finally:
            algo.stop()
        assert min(evaluated) == EVERY  # of networks as they were when it was due
        assert all(of < at for of, at in evaluated.items())

    @pytest.mark.slow
    def test_a_killed_runner_costs_no_training(self, tiny_overrides: dict[str, Any]) -> None:
        algo = build(tiny_overrides, steps=1000)
        try:
            (pid,) = algo.eval_env_runner_group.foreach_env_runner(
                lambda _: os.getpid(), local_env_runner=False
            )
            while not algo.evaluator._asked:
                algo.train()
            os.kill(pid, signal.SIGKILL)
            before, deadline = algo.env_steps, time.monotonic() + 240
            while algo.env_steps < 1000 or algo.progress.pace.updates_owed():
                assert time.monotonic() < deadline
                result = algo.train()
            assert algo.env_steps > before
            assert "eval/return" in result["report"]  # at the end it is waited for
            assert result["evaluated_at"] == 1000
        finally:
            algo.stop()


@pytest.mark.usefixtures("local_ray")
def test_a_stop_is_seen_in_an_evaluation_and_that_is_made_up_for(
    tiny_overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop_request, "LOOK_EVERY_S", 0.0)
    algo = build(tiny_overrides, steps=EVERY, runners=0)
    try:
        runner = algo.eval_env_runner_group.local_env_runner
        step, taken, seen = runner._try_env_step, [], []

        def steps_and_asks(actions: Any) -> Any:
            taken.append(1)
            if len(taken) == 1:
                seen.append(activities())
            if len(taken) == 250:  # in the second episode of two
                stop_request.ask_to_stop()
            return step(actions)

        monkeypatch.setattr(runner, "_try_env_step", steps_and_asks)
        while (result := algo.train())["env_steps"] < EVERY or algo.progress.pace.updates_owed():
            pass
        assert (len(taken), seen) == (250, [{algo.trial_id: "evaluating"}])
        assert activities() == {}
        assert not result["done"], "its evaluation is owed"
        assert "eval/return" not in result["report"]
        stop_request.withdraw()
        result = algo.train()
        assert (result["env_steps"], result["done"], result["evaluated_at"]) == (EVERY, True, EVERY)
        assert result["report"]["eval/episode_length"] == 200
    finally:
        stop_request.withdraw()
        algo.stop()


def test_a_stop_is_seen_in_the_evaluation_of_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[str] = []

    def play(agent: Any, task: str, num_episodes: int, seed: int, **watch: Any) -> dict[str, Any]:
        monkeypatch.setattr(stop_request, "is_asked", lambda: task == "b")
        watch["on_progress"](0.5)
        played.append(task)
        return {"returns": [1.0], "lengths": [5], "successes": [None], "faults": []}

    monkeypatch.setattr(stop_request, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(evaluation, "play", play)
    monkeypatch.setattr(evaluation, "LoadedAgent", lambda module: SimpleNamespace(tasks=("a", "b", "c")))
    runner = SimpleNamespace(
        worker_index=0,
        module=SimpleNamespace(unwrapped=lambda: None),
        env_seed=lambda: 1,
        config=SimpleNamespace(env_step_timeout_s=0.0),
    )
    outcomes, _ = evaluation._play_tasks(runner, 1, [0])
    assert (played, list(outcomes)) == (["a"], ["a"])


@pytest.mark.parametrize("runners", [[0], [2], [1, 3], [3, 5, 6]])
def test_whoever_lives_plays_all_tasks(runners: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = tuple("abcdefg")
    played: list[str] = []

    def play(agent: Any, task: str, num_episodes: int, seed: int, **watch: Any) -> dict[str, Any]:
        played.append(task)
        return {
            "returns": [1.0] * num_episodes,
            "lengths": [5] * num_episodes,
            "successes": [None] * num_episodes,
            "faults": [],
        }

    monkeypatch.setattr(evaluation, "play", play)
    monkeypatch.setattr(evaluation, "LoadedAgent", lambda module: SimpleNamespace(tasks=tasks))
    config = SimpleNamespace(evaluation_duration=2, info=SimpleNamespace(tasks=tasks))
    call = evaluation.evaluation_call(SimpleNamespace(config=config), runners)
    for index in runners:
        runner = SimpleNamespace(
            worker_index=index,
            module=SimpleNamespace(unwrapped=lambda: None),
            env_seed=lambda: 1,
            config=SimpleNamespace(env_step_timeout_s=0.0),
        )
        call(runner)
    assert sorted(played) == list(tasks)


def test_half_an_evaluation_is_none() -> None:
    config = SimpleNamespace(evaluation_duration=4, info=None)
    shares = [([(1.0, 5, None)] * 2, {}, [])]
    assert evaluation.summarize(SimpleNamespace(config=config), shares) == ({}, 0, 0)
