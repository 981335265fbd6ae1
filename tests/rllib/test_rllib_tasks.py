"""Tasks of every kind through the algorithm: registered ones, images, sets, ones that end."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import ray
from counting_env import CountingEnv

from tdmpc_ray.envs import register_task, registered
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2, TDMPC2Config
from tdmpc_ray.rllib.evaluation.of_checkpoints import evaluate_checkpoint, load_agent

pytestmark = pytest.mark.usefixtures("local_ray")


class LabCounter(gymnasium.Env):
    """Episodes of 20 steps; observes NaN from step `broken_at` of its life on."""

    def __init__(self, render_mode: str | None = None, broken_at: int = 0) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.broken_at, self.life = broken_at, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps, self.life = self.steps + 1, self.life + 1
        value = np.nan if self.broken_at and self.life >= self.broken_at else 1.0
        return np.full(3, value, np.float32), 1.0, self.steps == 20, False, {}


class WrongFirstStepIsDeath(LabCounter):
    """One sign of the first action ends the episode at once with -10; the other lasts 20 steps at +1."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        _, reward, ended, _, info = super().step(action)
        dies = self.steps == 1 and action[0] > 0
        return np.zeros(3, np.float32), -10.0 if dies else reward, bool(dies), ended, info


ray.cloudpickle.register_pickle_by_value(__import__("counting_env"))
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def train_until_it_fails(algo: TDMPC2) -> None:
    while True:
        algo.train()


def test_a_registered_task_and_its_faults_reach_remote_runners(
    tiny_overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registered, "_tasks", {})
    for name, broken_at in (("lab-counter", 0), ("lab-broken", 40)):
        faulty = partial(LabCounter, broken_at=broken_at)
        register_task(name, faulty, episode_length=20, can_terminate=True)
        config = (
            TDMPC2Config()
            .environment(name)
            .training(
                model_size="tiny",
                overrides={**tiny_overrides, "data.seed_steps": 30},
                steps_per_iteration=60,
            )
        )
        config.env_runners(num_env_runners=1).fault_tolerance(max_env_faults=0).debugging(log_level="ERROR")
        assert config.agent().model.episodic
        assert config.episode_length == 20
        monkeypatch.setattr(registered, "_tasks", {})  # as in a driver that got the config from another
        algo = config.build_algo()
        try:
            if broken_at:
                with pytest.raises(UserError, match=r"task 'lab-broken', step \d+: number 0 .* is nan"):
                    train_until_it_fails(algo)
            else:
                assert algo.train()["env_steps"] >= 60
        finally:
            algo.stop()


def test_images_all_the_way(tiny_overrides: dict[str, Any], tmp_path: Path) -> None:
    config = TDMPC2Config().environment("pendulum-swingup", obs="rgb")
    config.training(
        model_size="tiny",
        overrides={**tiny_overrides, "data.seed_steps": 30, "data.capacity": 500},
        steps_per_iteration=40,
    )
    algo = config.debugging(seed=0, log_level="ERROR").build_algo()
    for _ in range(2):
        result = algo.train()
    replay = algo.learner_group._learner.replay
    assert result["grad_updates"] == result["env_steps"] == 80
    assert (replay.obs.shape, replay.obs.dtype) == ((500, 3, 64, 64), np.uint8)
    batch = replay.sample(4, np.random.default_rng(0)).to("cpu")
    assert batch.obs.shape == (4, 4, 9, 64, 64)
    assert batch.obs.float().std() > 1
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    algo.stop()
    agent = load_agent(path)
    assert agent.obs == "rgb"
    obs = np.zeros((2, 9, 64, 64), np.uint8)
    assert agent.act(obs, np.array([True, True])).shape == (2, 1)


@pytest.mark.parametrize("runners", [0, 1])
def test_one_model_learns_a_set_of_tasks(
    runners: int, tiny_overrides: dict[str, Any], tmp_path: Path
) -> None:
    config = TDMPC2Config().environment("pendulum-swingup+mw-reach+cartpole-balance")
    config.training(
        model_size="tiny",
        overrides={**tiny_overrides, "data.seed_steps": 330},
        steps_per_iteration=360,
        eval_every=360,
    )
    config.env_runners(num_env_runners=runners, num_envs_per_env_runner=3, rollout_fragment_length=10)
    config.evaluation(evaluation_duration=1).debugging(seed=0, log_level="ERROR")
    algo = config.build_algo()
    try:
        while "eval/return" not in (report := algo.train()["report"]):
            assert algo.env_steps < 700
        model_config = algo.get_module().model_config
        assert model_config["action_dims"] == [1, 4, 1]
        lengths = (500, 100, 500)
        assert model_config["discount"] == [config.agent().update.discount(n) for n in lengths]
        names = ("pendulum-swingup", "mw-reach", "cartpole-balance")
        returns = [report[f"eval/{name}/return"] for name in names]
        assert report["eval/return"] == pytest.approx(np.mean(returns))
        assert report["eval/mw-reach/success"] in (0.0, 1.0)
        assert report["eval/mw-reach/episode_length"] == 100
        assert "eval/success" not in report
        path = algo.save_to_path(str(tmp_path / "checkpoint"))
        if not runners:
            replay = algo.learner_group._learner.replay
            steps = np.bincount(replay.task[: len(replay)][replay.valid[: len(replay)]])
            assert steps.min() > 100
            # Zeros, where a task gives or takes no number.
            reach, cartpole = (replay.task[: len(replay)] == task for task in (1, 2))
            assert replay.obs[: len(replay)][reach][:, 36:].all()  # the goal
            assert not replay.obs[: len(replay)][cartpole][:, 5:].any()
            assert not replay.action[: len(replay)][cartpole][:, 1:].any()
            assert replay.action[: len(replay)][reach][:, 1:].any()
    finally:
        algo.stop()
    with pytest.raises(UserError, match="say with --task which one to play; this agent knows: pendulum"):
        evaluate_checkpoint(path, 1)
    played = evaluate_checkpoint(path, 1, task="mw-reach")
    assert played["lengths"] == [100]
    assert len(played["successes"]) == 1


def test_the_first_update_has_seen_five_episodes_of_each_task(
    tiny_overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registered, "_tasks", {})
    repeats = [1, 2, 3, 4, 5]
    for repeat in repeats:
        register_task(f"lab-{repeat}", LabCounter, episode_length=60, action_repeat=repeat)
    config = TDMPC2Config().environment("+".join(f"lab-{repeat}" for repeat in repeats))
    config.training(
        model_size="tiny",
        overrides={**tiny_overrides, "model.episodic": True},
        updates_per_call=1,
        max_time_s_per_iteration=0.0,
    )
    config.env_runners(rollout_fragment_length=100).debugging(seed=0, log_level="ERROR")
    assert config.num_seed_steps == 5 * 60 * 5
    algo = config.build_algo()
    try:
        while algo.grad_updates == 0:
            result = algo.train()
        replay = algo.learner_group._learner.replay
        steps = np.bincount(replay.task[: len(replay)][replay.valid[: len(replay)]])
    finally:
        algo.stop()
    assert len(steps) == 5
    assert steps.min() >= 5 * 60
    assert result["env_steps"] == steps.sum() < 1600
    assert result["env_frames"] == (steps * repeats).sum()


@pytest.mark.slow
def test_what_ends_an_episode_at_its_first_step_is_learned() -> None:
    config = TDMPC2Config().environment(WrongFirstStepIsDeath)
    settings = {"model.episodic": True, "data.seed_steps": 400, "update.batch_size": 32}
    config.training(model_size="tiny", preset="light", overrides=settings, episode_length=20)
    config.training(total_steps=800, eval_every=800)
    algo = config.debugging(seed=0, log_level="ERROR").build_algo()
    try:
        while not algo.at_end:
            report = algo.train()["report"]
        assert report["eval/return"] == 20.0
    finally:
        algo.stop()


def test_an_unforeseen_termination_is_said(tiny_overrides: dict[str, Any]) -> None:
    config = TDMPC2Config().environment(CountingEnv, env_config={})
    config.training(model_size="tiny", overrides=tiny_overrides, episode_length=12)
    algo = config.debugging(seed=0, log_level="ERROR").build_algo()
    said = r"^the environment ended in a terminal state at step \d+ of an episode, .*: set model\.episodic to"
    with pytest.raises(UserError, match=said):
        algo.train()
    algo.stop()


def test_an_undeclared_termination_of_a_registered_task_is_said(
    tiny_overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registered, "_tasks", {})
    register_task("test-undeclared", lambda render_mode=None: CountingEnv({}), episode_length=12)
    config = TDMPC2Config().environment("test-undeclared")
    config.training(model_size="tiny", overrides=tiny_overrides)
    algo = config.debugging(seed=0, log_level="ERROR").build_algo()
    said = r"^task 'test-undeclared' .*: register it with can_terminate=True, or set"
    with pytest.raises(UserError, match=said):
        algo.train()
    algo.stop()
