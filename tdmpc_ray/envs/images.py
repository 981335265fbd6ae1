"""Byte images of any size as frames (C, 64, 64), and stacks of frames."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from numpy.typing import ArrayLike, NDArray

from tdmpc_ray.envs.spaces import meaning_of, with_meaning
from tdmpc_ray.observations import IMAGE, parts_of

if TYPE_CHECKING:
    from tdmpc_ray.envs.wrappers import SimulatorEnv

SIZE = 64  # pixels of a frame, in height and width
FRAMES = 3  # in a stack
STACK_SHAPES = ((FRAMES, SIZE, SIZE), (3 * FRAMES, SIZE, SIZE))  # of gray frames, and of RGB
SIDE = 16  # pixels that an image has at least in height and width: what is smaller is a grid of numbers
Images = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageForm:
    """Where an image has its channels.

    Attributes:
        channels: how many there are: 1 or 3, or 9 of a stack that was made before.
        axis: of the array that counts them; None: a gray image without one.
    """

    channels: int
    axis: int | None

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> ImageForm | None:
        """Of an array of this shape; None where it is no gray or RGB image."""
        if shape == STACK_SHAPES[1]:
            return cls(shape[0], 0)
        if len(shape) == 2:
            return cls(1, None)
        if len(shape) == 3:
            for axis in (2, 0):
                height, width = (side for i, side in enumerate(shape) if i != axis)
                if shape[axis] in (1, 3) and min(height, width) >= SIDE:
                    return cls(shape[axis], axis)
        return None

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Of what `to_frame` gives."""
        return self.channels, SIZE, SIZE


def to_frame(image: Images, form: ImageForm) -> Images:
    """An image of any size as (C, 64, 64); of one that has this size already, every pixel stays."""
    if form.axis == 2:
        image = image.transpose(2, 0, 1)
    elif form.axis is None:
        image = image[None]
    if image.shape[1:] == (SIZE, SIZE):
        return np.array(image)
    from PIL import Image

    # Pillow widens its filter where it makes images smaller, so that every pixel has its share.
    bilinear = Image.Resampling.BILINEAR
    return np.stack(
        [np.asarray(Image.fromarray(np.ascontiguousarray(c)).resize((SIZE, SIZE), bilinear)) for c in image]
    )


class FrameStack(gymnasium.Wrapper, gymnasium.utils.RecordConstructorArgs):
    """Observes the last frames, oldest first, one per agent step, as published: (3 C, 64, 64) uint8.

    At the start of an episode the first frame fills the stack. A vector beside frames belongs to the newest.

    Args:
        env: observes frames (C, 64, 64), or a dict of them and a vector.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)
        self.observation_space = _stacked(env.observation_space)
        self._frames: deque[Images] = deque(maxlen=FRAMES)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._frames.extend([parts_of(observation)[0]] * FRAMES)
        return self._with_stack(observation), info

    def step(self, action: ArrayLike) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Apply an action (A,) in [-1, 1]."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(parts_of(observation)[0])
        return self._with_stack(observation), reward, terminated, truncated, info

    def _with_stack(self, observation: Any) -> Any:
        frames = np.concatenate(self._frames)
        return {**observation, IMAGE: frames} if isinstance(observation, dict) else frames


def stack_frames(frames: Images) -> Images:
    """The stacks that `FrameStack` gives for the frames of an episode, (T, C, 64, 64) to (T, 3 C, 64, 64)."""
    steps = np.arange(len(frames))
    return np.concatenate([frames[np.maximum(steps - back, 0)] for back in reversed(range(FRAMES))], axis=1)


def is_stacked(space: Any) -> bool:
    """Whether observations need no `FrameStack`: vectors, and stacks that were made before."""
    shape = parts_of(space)[0].shape
    return len(shape) == 1 or shape == STACK_SHAPES[1]


def _stacked(space: Any) -> Any:
    """The space of stacks, from that of frames."""
    if isinstance(space, Dict):
        parts = {**space.spaces, IMAGE: _stacked(space[IMAGE])}
        meaning = meaning_of(space)
        return with_meaning(Dict(parts), {**meaning, IMAGE: meaning_of(parts[IMAGE])} if meaning else {})
    channels = space.shape[0]
    stack = Box(0, 255, (FRAMES * channels, SIZE, SIZE), np.uint8)
    return with_meaning(stack, {**meaning_of(space), "frames": FRAMES})


class CameraEnv(gymnasium.ObservationWrapper, gymnasium.utils.RecordConstructorArgs):
    """Observes what the camera of a simulator's task sees, (3, 64, 64)."""

    env: SimulatorEnv

    def __init__(self, env: SimulatorEnv) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self)
        gymnasium.ObservationWrapper.__init__(self, env)
        box = Box(0, 255, (3, SIZE, SIZE), np.uint8)
        self.observation_space = with_meaning(box, {"kind": "images", "camera": env.camera_id})

    def observation(self, observation: Any) -> Images:
        """The camera's frame instead of the state."""
        return self.env.frame(SIZE).transpose(2, 0, 1)
