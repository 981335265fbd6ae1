"""Sets of tasks: one environment, padded and in turn."""

from __future__ import annotations

from fractions import Fraction

import gymnasium
import numpy as np
import pytest

from tdmpc_ray.envs import make_env, random_return, register_task, registered, task_info
from tdmpc_ray.envs.multitask import MultiTaskEnv, _shares, action_sizes, make_set
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.acting.task_env import read_task_config, task_config

SMALL = "pendulum-swingup+mw-reach+walker-walk"


def test_a_set_by_name() -> None:
    info = task_info(SMALL)
    assert info.tasks == ("pendulum-swingup", "mw-reach", "walker-walk")
    assert (info.suite, info.episode_length, info.action_repeat, info.metric) == (
        "multitask",
        500,
        2,
        "score",  # some are judged by returns, some by success
    )
    assert (info.obs_size, info.action_size) == (39, 6)
    assert action_sizes(info) == [1, 4, 6]
    assert task_info("ball_in_cup-catch+mw-reach").name == "cup-catch+mw-reach"
    assert task_info("mw-reach+mw-push").metric == "success"
    assert len(task_info("mt80").tasks) == 80
    assert task_info("mt30+mw-reach").tasks == (*task_info("mt30").tasks, "mw-reach")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("walker-walk+walker-wlk", "unknown task 'walker-wlk': did you mean 'walker-walk'"),
        ("cup-catch+ball_in_cup-catch", "task 'cup-catch' is twice in"),
        ("walker-walk+", "unknown task ''"),
        ("mt30+walker-walk", "task 'walker-walk' is twice in"),
    ],
)
def test_wrong_sets(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        task_info(name)


def test_each_episode_is_the_task_s_own_padded() -> None:
    env = make_env(SMALL, seed=5)
    assert env.observation_space.shape == (39,)
    assert env.action_space.shape == (6,)
    played = []
    for _ in range(5):
        obs, info = env.reset()
        task = info["task"]
        size = [3, 39, 24][task]
        steps, over = 0, False
        while not over:
            assert not obs[size:].any()
            obs, _, _, over, info = env.step(env.action_space.sample())
            assert info["task"] == task
            steps += 1
        assert steps == [500, 100, 500][task]
        played.append(task)
    # In turn, and then whoever has played the fewest steps.
    assert played == [0, 1, 2, 1, 1]


def test_a_task_of_a_set_steps_like_itself() -> None:
    both = MultiTaskEnv([(7, "pendulum-swingup")], 5, 3, seed=1)
    obs, info = both.reset(seed=2)
    assert info["task"] == 7
    again, _ = both.reset(seed=2)
    np.testing.assert_array_equal(obs, again)
    assert not np.array_equal(both.reset()[0], again)  # the stream goes on
    own = both._envs[7]
    own_seed = np.random.SeedSequence(2, spawn_key=(7,)).generate_state(1)[0]
    alone = make_env("pendulum-swingup", seed=int(own_seed))
    expected, _ = alone.reset()
    np.testing.assert_array_equal(obs[:3], expected)
    alone.reset()
    for _ in range(5):
        action = both.action_space.sample()
        theirs, ours = alone.step(action[:1]), own.step(action[:1])
        np.testing.assert_array_equal(theirs[0], ours[0])


@pytest.mark.parametrize(
    ("num_tasks", "num_slots"), [(30, 8), (30, 6), (3, 2), (3, 4), (3, 6), (80, 1), (4, 4)]
)
def test_tasks_are_shared_out_evenly_among_environments(num_tasks: int, num_slots: int) -> None:
    shares = [_shares(num_tasks, slot, num_slots) for slot in range(num_slots)]
    for task in range(num_tasks):
        assert sum(share.get(task, 0) for share in shares) == 1
    assert all(sum(share.values()) == Fraction(num_tasks, num_slots) for share in shares)
    if num_tasks % num_slots == 0:
        assert [list(share) for share in shares] == [
            list(range(slot, num_tasks, num_slots)) for slot in range(num_slots)
        ]


def test_an_environment_keeps_to_its_shares() -> None:
    info, steps = task_info("pendulum-swingup+mw-reach+mw-push"), np.zeros(3)
    for slot in range(2):
        env = make_set(info, 0, slot, 2)
        while env._steps.sum() < 3000:
            env.reset()
            over = False
            while not over:
                *_, over, info_of_step = env.step(np.zeros(4))
                steps[info_of_step["task"]] += 1
    assert np.allclose(steps / steps.sum(), 1 / 3, atol=0.05)


def test_registered_tasks_of_a_set_travel_with_its_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered, "_tasks", {})
    register_task("lab", lambda render_mode=None: gymnasium.make("Pendulum-v1"), episode_length=200)
    config = task_config("lab+walker-walk")
    monkeypatch.setattr(registered, "_tasks", {})  # as in another process
    assert read_task_config(config).tasks == ("lab", "walker-walk")


def test_random_returns_are_means_over_the_tasks() -> None:
    alone = [random_return(name, 2, seed=0) for name in ("pendulum-swingup", "cartpole-balance")]
    assert random_return("pendulum-swingup+cartpole-balance", 2, seed=0) == pytest.approx(
        np.mean(alone, axis=0)
    )
