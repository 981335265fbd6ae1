"""Environments as users really have them; each says what must happen, whichever way it comes in."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Tuple

INF = np.inf
LENGTH = 20


class Odd(gymnasium.Env):
    """Stands still; 20 steps are an episode."""

    observation_space: gymnasium.Space = Box(-INF, INF, (3,), np.float32)
    action_space: gymnasium.Space = Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.actions: list[np.ndarray] = []  # every one that arrived

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def observe(self) -> Any:
        if self.observation_space.dtype == np.uint8:
            return self.observation_space.sample()
        return np.zeros(self.observation_space.shape, self.observation_space.dtype)

    def step(self, action: Any) -> Any:
        self.actions.append(np.array(action))
        self.t += 1
        return self.observe(), 1.0, False, self.t >= LENGTH, {}


class IntegerActions(Odd):
    """Refused."""

    action_space = Box(-3, 3, (2,), np.int32)


class UnboundedActions(Odd):
    """Refused."""

    action_space = Box(-INF, INF, (2,), np.float32)


class HalfBoundedActions(Odd):
    """Refused."""

    action_space = Box(0.0, INF, (2,), np.float32)


class HugeActions(Odd):
    """Refused: bounds of this size overflow."""

    action_space = Box(-3.4e38, 3.4e38, (2,), np.float32)


class OwnBounds(Odd):
    """Trains; its actions are those of its space, to the last digit."""

    action_space = Box(np.array([-0.1, 2.0]), np.array([0.3, 3.0]), dtype=np.float64)


class ByteVector(Odd):
    """Trains: 128 bytes are a vector like any other."""

    observation_space = Box(0, 255, (128,), np.uint8)


class ByteGrid(Odd):
    """Trains: too small for an image."""

    observation_space = Box(0, 255, (7, 7, 3), np.uint8)


class Grid(Odd):
    """Trains: numbers in two dimensions, however many."""

    observation_space = Box(-1.0, 1.0, (20, 30), np.float64)


class ListOfInts(Odd):
    """Trains."""

    observation_space = Box(-5, 5, (3,), np.int64)

    def observe(self) -> Any:
        return [1, 2, 3]


class FloatImage(Odd):
    """Refused: images are bytes."""

    observation_space = Box(0.0, 1.0, (9, 64, 64), np.float32)


class TwentyThousandNumbers(Odd):
    """200 steps train in a few hundred MB: a replay is never larger than the run."""

    observation_space = Box(-1.0, 1.0, (20_000,), np.float32)


class NumpyReward(Odd):
    """Works: a reward of shape (1,) is a number."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, np.array([reward]), terminated, truncated, info


class WordReward(Odd):
    """Refused at the first step."""

    def step(self, action: Any) -> Any:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, "much", terminated, truncated, info


class OldStep(Odd):
    """Refused at the first step: it gives four values."""

    def step(self, action: Any) -> Any:
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, truncated, info


def wrapped_old_step() -> gymnasium.Env:
    """As `gymnasium.make` gives it."""
    return gymnasium.wrappers.TimeLimit(OldStep(), LENGTH)


class OldReset(Odd):
    """Refused at the first reset: it gives no info."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)[0]


class OldSignature(Odd):
    """Refused when it is built: its reset takes no seed."""

    def reset(self) -> Any:
        return super().reset()


class GoalDict(Odd):
    """Works: a Dict of vectors is flattened in its order."""

    observation_space = Dict(
        observation=Box(-INF, INF, (4,), np.float64),
        achieved_goal=Box(-INF, INF, (3,), np.float64),
        desired_goal=Box(-INF, INF, (3,), np.float64),
    )

    def observe(self) -> Any:
        return {"desired_goal": np.full(3, 2.0), "observation": np.full(4, 3.0), "achieved_goal": np.ones(3)}


class MixedTuple(Odd):
    """Works: what is counted becomes a number per possibility, as Gymnasium flattens it."""

    observation_space = Tuple((Box(-1, 1, (2,)), Dict(mode=Discrete(3), level=Box(0, 9, (), np.int32))))

    def observe(self) -> Any:
        return np.array([0.5, -0.5]), {"mode": 1, "level": 7}


class MissingKey(GoalDict):
    """Refused at the first reset."""

    def observe(self) -> Any:
        return {"observation": np.zeros(4), "achieved_goal": np.zeros(3)}


class ImageAndVector(Odd):
    """Works: an image, and everything else as a vector."""

    observation_space = Dict(
        speed=Box(-1, 1, (2,)), camera=Box(0, 255, (84, 84, 3), np.uint8), gear=Discrete(3)
    )

    def observe(self) -> Any:
        return {"speed": np.full(2, self.t / LENGTH), "camera": self.camera(), "gear": self.t % 3}

    def camera(self) -> Any:
        return self.observation_space["camera"].sample()  # type: ignore[index]


class StackAndVector(ImageAndVector):
    """Works: frames that were stacked before are not stacked again."""

    observation_space = Dict(seen=Box(0, 255, (9, 64, 64), np.uint8), speed=Box(-1, 1, (2,)))

    def observe(self) -> Any:
        return {"speed": np.full(2, self.t / LENGTH), "seen": np.full((9, 64, 64), self.t, np.uint8)}


class TwoImages(Odd):
    """Refused."""

    observation_space = Dict(left=Box(0, 255, (84, 84), np.uint8), right=Box(0, 255, (84, 84), np.uint8))


class OwnPixels(Odd):
    """Works: byte images of any size, channels last, become 64 x 64 with three stacked frames."""

    observation_space: gymnasium.Space = Box(0, 255, (84, 84, 3), np.uint8)


class ChannelsFirst(OwnPixels):
    """Works."""

    observation_space = Box(0, 255, (3, 40, 72), np.uint8)


class GrayPixels(OwnPixels):
    """Works, with one channel a frame."""

    observation_space = Box(0, 255, (84, 84), np.uint8)


class OwnStack(Odd):
    """Refused: four frames of its own."""

    observation_space = Box(0, 255, (4, 84, 84), np.uint8)


class FloatsForBytes(OwnPixels):
    """Refused at the first reset: bytes are declared."""

    def observe(self) -> Any:
        return np.full((84, 84, 3), 0.5, np.float32)


class NoRenderMode(gymnasium.Env):
    """Works: a constructor without `render_mode`, where no frames are asked for."""

    observation_space = Box(-1.0, 1.0, (3,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return np.zeros(3, np.float32), 0.0, False, self.t >= LENGTH, {}
