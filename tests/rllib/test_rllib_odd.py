"""Environments of all kinds behave alike, whichever way they come in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import odd_envs
import pytest
import ray
from gymnasium.spaces import Box, Dict
from odd_envs import LENGTH
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.env.env_context import EnvContext
from ray.tune.registry import register_env

from tdmpc_ray.envs import make_env, register_task, registered, task_shapes
from tdmpc_ray.envs.faults import FAULTS, GuardedEnv
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.rllib.acting.task_env import env_creator

ray.cloudpickle.register_pickle_by_value(sys.modules["odd_envs"])


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered, "_tasks", {})


def by_gym(cls: type) -> gymnasium.Env:
    name = f"{cls.__name__}-v0"
    if name not in gymnasium.registry:
        gymnasium.register(name, entry_point=cls, max_episode_steps=LENGTH)
    return GuardedEnv(lambda: make_env(f"gym:{name}"), name)


def by_registration(cls: type) -> gymnasium.Env:
    register_task(cls.__name__, cls, episode_length=LENGTH)
    return GuardedEnv(lambda: make_env(cls.__name__), cls.__name__)


def by_class(cls: Any) -> gymnasium.Env:
    return env_creator(cls, None, LENGTH)(EnvContext({}, worker_index=0))


def by_ray_s_name(cls: type) -> gymnasium.Env:
    register_env(cls.__name__, lambda context: cls())
    return by_class(cls.__name__)


Way = Callable[[type], gymnasium.Env]
ways = pytest.mark.parametrize("way", [by_gym, by_registration, by_class, by_ray_s_name])


def play(env: gymnasium.Env) -> list[Any]:
    """The observations of an episode, all of the declared space."""
    obs, _ = env.reset(seed=0)
    seen, over = [obs], False
    while not over:
        obs, reward, terminated, over, info = env.step(env.action_space.sample())
        assert type(reward) is float
        assert not terminated
        assert FAULTS not in info
        seen.append(obs)
    assert len(seen) == LENGTH + 1
    assert all(env.observation_space.contains(obs) for obs in seen)
    return seen


@ways
@pytest.mark.parametrize(
    ("cls", "told"),
    [
        (odd_envs.IntegerActions, r"has actions Box\(2,\) of int32: choose"),
        (odd_envs.UnboundedActions, "has unbounded actions, number 0 from -inf to inf: give both bounds"),
        (odd_envs.HalfBoundedActions, "has unbounded actions, number 0 from 0 to inf: give both bounds"),
        (odd_envs.HugeActions, r"has unbounded actions, number 0 from -3.4e\+38 to 3.4e\+38: give both"),
        (odd_envs.FloatImage, r"has observations Box\(9, 64, 64\) of float32: give images as bytes"),
        (odd_envs.OwnStack, r"has observations Box\(4, 84, 84\) of uint8: give one gray or RGB image"),
        (odd_envs.TwoImages, r"has observations Box\(84, 84\) of uint8: give one image: there is \['left'\]"),
        (odd_envs.OldSignature, r"reset\(\) got an unexpected keyword argument 'seed': .* old Gym"),
    ],
)
def test_what_can_never_be_trained_on_is_refused_when_it_is_built(way: Way, cls: type, told: str) -> None:
    with pytest.raises(UserError, match=f"^task '.*{cls.__name__}.*{told}") as caught:
        way(cls)
    assert "\n" not in str(caught.value)


@ways
@pytest.mark.parametrize(
    ("cls", "told"),
    [
        (odd_envs.WordReward, "step 1: the reward is no number but str: mend the environment"),
        (odd_envs.OldStep, r"step 1: step\(\) gives 4 values, not \(observation, reward, .*old Gym"),
        (odd_envs.OldReset, r"reset: reset\(\) gives no \(observation, info\): .*old Gym"),
        (odd_envs.MissingKey, "reset: the observation has no 'desired_goal'"),
        (odd_envs.FloatsForBytes, "reset: the observation is an image of float32, declared are bytes"),
    ],
)
def test_what_never_gets_better_is_refused_at_once(way: Way, cls: type, told: str) -> None:
    env = way(cls)
    with pytest.raises(UserError, match=f"^task '.*{cls.__name__}.*', {told}") as caught:
        play(env)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("way", [by_registration, by_class])
def test_old_environments_are_known_under_wrappers(way: Any) -> None:
    with pytest.raises(UserError, match=r"step 1: step\(\) gives 4 values.*old Gym"):
        play(way(odd_envs.wrapped_old_step))


@ways
@pytest.mark.parametrize(
    ("cls", "size"),
    [
        (odd_envs.ByteVector, 128),
        (odd_envs.ByteGrid, 147),
        (odd_envs.Grid, 600),
        (odd_envs.ListOfInts, 3),
        (odd_envs.NumpyReward, 3),
        (odd_envs.GoalDict, 10),
        (odd_envs.MixedTuple, 6),
        (odd_envs.NoRenderMode, 3),
        (odd_envs.TwentyThousandNumbers, 20_000),
    ],
)
def test_numbers_of_all_kinds_are_vectors(way: Way, cls: type, size: int) -> None:
    env = way(cls)
    assert env.observation_space == Box(-np.inf, np.inf, (size,), np.float32)
    seen = play(env)
    space: Any = cls.observation_space  # type: ignore[attr-defined]
    if cls not in (odd_envs.ByteVector, odd_envs.ByteGrid):  # which are random
        flat = gymnasium.spaces.flatten(space, env.unwrapped.observe() if size != 3 else seen[0])
        np.testing.assert_array_equal(seen[-1], flat)


@ways
@pytest.mark.parametrize(
    ("cls", "channels"), [(odd_envs.OwnPixels, 3), (odd_envs.ChannelsFirst, 3), (odd_envs.GrayPixels, 1)]
)
def test_images_of_all_kinds_are_stacked(way: Way, cls: type, channels: int) -> None:
    env = way(cls)
    assert env.observation_space == Box(0, 255, (3 * channels, 64, 64), np.uint8)
    seen = play(env)
    for c in (slice(0, channels), slice(channels, 2 * channels)):
        np.testing.assert_array_equal(seen[0][c], seen[0][-channels:])
    np.testing.assert_array_equal(seen[2][:channels], seen[0][-channels:])
    np.testing.assert_array_equal(seen[2][:-channels], seen[1][channels:])
    assert not np.array_equal(seen[2][-channels:], seen[1][-channels:])


@ways
def test_an_image_and_what_is_beside_it_are_two_parts(way: Way) -> None:
    env = way(odd_envs.ImageAndVector)
    vectors = Box(-np.inf, np.inf, (5,), np.float32)
    assert env.observation_space == Dict(image=Box(0, 255, (9, 64, 64), np.uint8), vector=vectors)
    seen = play(env)
    for t, obs in enumerate(seen):
        expected = [t / LENGTH, t / LENGTH, *np.eye(3)[t % 3]]
        np.testing.assert_array_equal(obs["vector"], np.array(expected, np.float32))
    np.testing.assert_array_equal(seen[2]["image"][:-3], seen[1]["image"][3:])
    assert not np.array_equal(seen[2]["image"][-3:], seen[1]["image"][-3:])
    stacked = play(way(odd_envs.StackAndVector))
    assert [obs["image"].min() for obs in stacked] == list(range(LENGTH + 1))
    assert [obs["image"].max() for obs in stacked] == list(range(LENGTH + 1))


@ways
def test_a_fault_ends_an_episode_of_two_parts(way: Way) -> None:
    class Blind(odd_envs.ImageAndVector):
        def observe(self) -> Any:
            return {**super().observe(), "speed": np.full(2, np.nan if self.t == 3 else 0.0)}

    env = way(Blind)
    env.reset(seed=0)
    steps = [env.step(env.action_space.sample()) for _ in range(3)]
    obs, _, _, truncated, info = steps[-1]
    assert truncated
    assert info[FAULTS][0].endswith("', step 3: number 0 of the observation is nan")
    assert env.observation_space.contains(obs)


@ways
def test_actions_are_those_of_the_environment(way: Way) -> None:
    env = way(odd_envs.OwnBounds)
    assert env.action_space == Box(-1, 1, (2,), np.float32)
    env.reset()
    for action in ([-1, -1], [1, 1], [0, 0.5]):
        env.step(np.array(action, np.float32))
    own: Any = env.unwrapped
    np.testing.assert_allclose(own.actions, [[-0.1, 2], [0.3, 3], [0.1, 2.75]])
    assert all(own.action_space.contains(action) for action in own.actions)


def test_images_are_no_part_of_a_set() -> None:
    register_task("seen", odd_envs.OwnPixels, episode_length=LENGTH)
    assert task_shapes("seen") == ((9, 64, 64), 2, 0)
    register_task("both", odd_envs.ImageAndVector, episode_length=LENGTH)
    assert task_shapes("both") == ((9, 64, 64), 2, 5)
    for task in ("seen", "both"):
        with pytest.raises(UserError, match=f"task '{task}' observes images: in a set of tasks, all have to"):
            make_env(f"{task}+walker-walk")


def test_a_class_may_take_a_config_or_none() -> None:
    class Configured(odd_envs.Odd):
        def __init__(self, config: Any) -> None:
            super().__init__()
            self.config = dict(config)

    class ByName(odd_envs.Odd):
        def __init__(self, size: int = 3, render_mode: str | None = None) -> None:
            super().__init__(render_mode)
            self.size = size

    context = EnvContext({"size": 5}, worker_index=0)
    assert env_creator(Configured, None, LENGTH)(context).unwrapped.config == {"size": 5}
    built: Any = env_creator(ByName, None, LENGTH)(context).unwrapped
    assert (built.size, built.render_mode) == (5, None)
    assert by_class(odd_envs.Odd).unwrapped.render_mode is None


@pytest.mark.parametrize("way", ["class", "name"])
def test_nothing_starts_for_what_is_refused(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = odd_envs.IntegerActions
    register_task(cls.__name__, cls, episode_length=LENGTH)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(Algorithm, "__init__", None)
    config = TDMPC2Config().environment(cls if way == "class" else cls.__name__)
    with pytest.raises(UserError, match="'IntegerActions' has actions Box"):
        config.training(episode_length=LENGTH).build_algo()
