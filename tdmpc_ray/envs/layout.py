"""How observations of any kind become one float32 vector, one byte image, or both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space
from numpy.typing import NDArray

from tdmpc_ray.envs.contract import LayoutError
from tdmpc_ray.envs.images import SIDE, SIZE, ImageForm, to_frame
from tdmpc_ray.envs.spaces import FloatArray, meaning_of, observation_box, with_meaning
from tdmpc_ray.errors import UserError
from tdmpc_ray.observations import IMAGE, VECTOR


class UnsupportedSpacesError(UserError):
    """The environment exists, and nothing here handles its actions or observations."""


class Layout(Protocol):
    """Reads observations of one space.

    Attributes:
        space: of what comes out.
    """

    @property
    def space(self) -> Space: ...

    def __call__(self, observation: Any) -> Any:
        """The observation as an array of `space`, or as a dict of arrays.

        Raises:
            LayoutError: it is of another kind or shape than its space says.
        """


@dataclass(frozen=True)
class Leaf:
    """A part of an observation that has a shape: the whole of it, or an entry of a Dict or Tuple."""

    path: tuple[Any, ...]
    space: Space

    @property
    def where(self) -> str:
        """How code names it, after the observation."""
        return "".join(f"[{key!r}]" for key in self.path)

    def of(self, observation: Any) -> Any:
        """This part of an observation."""
        for key in self.path:
            try:
                observation = observation[key]
            except (KeyError, IndexError, TypeError):
                raise LayoutError(f" has no {key!r}, which its space declares") from None
        return observation

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse another shape than the declared one."""
        if shape != self.space.shape:
            raise LayoutError(f"{self.where} has shape {shape}, declared is {self.space.shape}")

    def array(self, observation: Any) -> NDArray[Any]:
        """This part of an observation as an array of real numbers, which may be the environment's own."""
        value = self.of(observation)
        try:
            array = np.asarray(value)
        except (TypeError, ValueError):
            raise self._no_numbers(type(value).__name__) from None
        if array.dtype.kind not in "biuf":  # words, complex numbers and None could be cast, too
            raise self._no_numbers(f"an array of {array.dtype}" if array.shape else type(value).__name__)
        return array

    def numbers(self, observation: Any) -> FloatArray:
        """This part of an observation as a vector; of what is counted, one number per possibility."""
        array = self.array(observation)
        if isinstance(self.space, Discrete) and array.size == 1:
            array = array.reshape(())
        self.check_shape(array.shape)
        if isinstance(self.space, Box):
            return array.astype(np.float32).reshape(-1)
        self._check_counts(array)
        return np.asarray(gymnasium.spaces.flatten(self.space, array.astype(np.int64)), np.float32)

    def _check_counts(self, array: NDArray[Any]) -> None:
        """Refuse what a counted space does not count to."""
        low, number = _counts(self.space)
        wrong = (array < low) | (array >= low + number) | (array != np.trunc(array))
        if wrong.any():
            value, first, number = (np.broadcast_to(x, array.shape)[wrong][0] for x in (array, low, number))
            raise LayoutError(
                f"{self.where} holds {value}, declared are whole numbers from {first} to {first + number - 1}"
            )

    def _no_numbers(self, what: str) -> LayoutError:
        return LayoutError(f"{self.where} is no array of numbers but {what}")


class VectorLayout:
    """Joins the parts of an observation in the order of their space, as `FlattenObservation` does."""

    def __init__(self, leaves: list[Leaf]) -> None:
        self._leaves = leaves
        sizes = [gymnasium.spaces.flatdim(leaf.space) for leaf in leaves]
        parts = [
            {"path": list(leaf.path), "space": describe(leaf.space), "size": size}
            for leaf, size in zip(leaves, sizes, strict=True)
        ]
        self.space = with_meaning(observation_box(sum(sizes)), {"kind": "vector", "parts": parts})

    def __call__(self, observation: Any) -> FloatArray:
        """The observation as a vector (O,)."""
        if len(self._leaves) == 1:
            return self._leaves[0].numbers(observation)
        return np.concatenate([leaf.numbers(observation) for leaf in self._leaves])


class ImageLayout:
    """Takes byte images of any size; they come out as (C, 64, 64)."""

    def __init__(self, leaf: Leaf, form: ImageForm) -> None:
        self._leaf, self._form = leaf, form
        part = {"path": list(leaf.path), "space": describe(leaf.space)}
        box = Box(0, 255, form.frame_shape, np.uint8)
        self.space = with_meaning(box, {"kind": "images", **part, "frames": 1})

    def __call__(self, observation: Any) -> NDArray[np.uint8]:
        """The observation as an image (C, 64, 64)."""
        image = self._leaf.array(observation)
        self._leaf.check_shape(image.shape)
        if image.dtype != np.uint8:
            raise LayoutError(f"{self._leaf.where} is an image of {image.dtype}, declared are bytes (uint8)")
        return to_frame(image, self._form)


class ImageVectorLayout:
    """Takes a byte image, and all that is observed beside it as a vector."""

    def __init__(self, image: ImageLayout, vector: VectorLayout) -> None:
        self._image, self._vector = image, vector
        parts: dict[str, Space] = {IMAGE: image.space, VECTOR: vector.space}
        meaning = {"kind": "images and vector"} | {name: meaning_of(space) for name, space in parts.items()}
        self.space = with_meaning(Dict(parts), meaning)

    def __call__(self, observation: Any) -> dict[str, NDArray[Any]]:
        """The observation as an image (C, 64, 64) and a vector (V,)."""
        return {IMAGE: self._image(observation), VECTOR: self._vector(observation)}


def vector_layout(size: int) -> VectorLayout:
    """Of environments that give a vector (O,) by themselves."""
    return VectorLayout([Leaf((), observation_box(size))])


def read_layout(task: str, space: Space) -> Layout:
    """How to read observations of a space.

    Args:
        task: its name, for errors.
        space: of the environment.

    Raises:
        UnsupportedSpacesError: says what of it is not supported, and what to do.
    """
    leaves = list(_leaves(space))
    for leaf in leaves:
        is_box = isinstance(leaf.space, Box)
        if not is_box and not isinstance(leaf.space, (Discrete, MultiDiscrete, MultiBinary)):
            raise _refused(task, leaf.space, "choose a task that observes a vector or byte images")
        if is_box and np.prod(leaf.space.shape or ()) == 0:
            raise _refused(task, leaf.space, "there is nothing in it to observe")
    if not leaves:
        raise _refused(task, space, "there is nothing in it to observe")
    images = [leaf for leaf in leaves if _is_image(leaf.space)]
    if not images:
        return VectorLayout(leaves)
    image = images[0]
    if len(images) > 1:
        raise _refused(task, images[1].space, f"give one image: there is {image.where} already")
    if image.space.dtype != np.uint8:
        raise _refused(task, image.space, "give images as bytes, 0 to 255 in uint8; other numbers, flattened")
    form = ImageForm.of(image.space.shape or ())
    if form is None:
        raise _refused(task, image.space, "give one gray or RGB image, which is stacked here")
    layout = ImageLayout(image, form)
    beside = [leaf for leaf in leaves if leaf is not image]
    return ImageVectorLayout(layout, VectorLayout(beside)) if beside else layout


def describe(space: Space) -> str:
    """A space in a few words."""
    return f"Box{space.shape} of {space.dtype}" if isinstance(space, Box) else type(space).__name__


def _refused(task: str, space: Space, what_to_do: str) -> UnsupportedSpacesError:
    return UnsupportedSpacesError(f"task '{task}' has observations {describe(space)}: {what_to_do}")


def _leaves(space: Space, path: tuple[Any, ...] = ()) -> Iterator[Leaf]:
    if isinstance(space, gymnasium.spaces.Dict):
        for key, part in space.spaces.items():
            yield from _leaves(part, (*path, key))
    elif isinstance(space, gymnasium.spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from _leaves(part, (*path, index))
    else:
        yield Leaf(path, space)


def _counts(space: Space) -> tuple[Any, Any]:
    """The lowest value of what is counted, and how many there are, of each number in it."""
    if isinstance(space, Discrete):
        return space.start, space.n
    return (space.start, space.nvec) if isinstance(space, MultiDiscrete) else (0, 2)


def _is_image(space: Space) -> bool:
    """Whether a space has height and width; other arrays are grids of numbers.

    Of numbers that are no bytes, RGB and ready stacks are known by their shape; others can as well be maps of
    heights, or tables, unless they are as large as the images that an agent sees.
    """
    shape = space.shape or ()
    if not isinstance(space, Box):
        return False
    form = ImageForm.of(shape)
    has_colors = form is not None and form.channels > 1
    side = SIDE if space.dtype == np.uint8 or has_colors else SIZE
    return any(min(sides) >= side for sides in pairwise(shape))
