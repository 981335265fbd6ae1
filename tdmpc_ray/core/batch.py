"""The one index convention of the project.

Time is the first axis. `obs[t]` is what the agent saw before it took `action[t]`; `reward[t]` and
`terminated[t]` are what the environment answered to `action[t]`, together with `obs[t + 1]`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class ImageAndVector(NamedTuple):
    """An observation of two parts.

    Attributes:
        image: stacked frames of 0 to 255, (..., C, 64, 64).
        vector: (..., V).
    """

    image: Tensor
    vector: Tensor


Observation = Tensor | ImageAndVector


_BY_STEP = ("obs", "action", "reward", "terminated", "mask", "vector", "extra")  # (T, B, ...)


class Batch(NamedTuple):
    """B sequences of H transitions.

    Attributes:
        obs: observations, (H + 1, B, O) or (H + 1, B, C, 64, 64). Before `to`, images are what the replay
            keeps: each frame once, (H + F, B, C / F, 64, 64).
        action: actions in [-1, 1], (H, B, A).
        reward: rewards, (H, B, 1).
        terminated: 1.0 where the task itself ended with this step (never for a time limit), (H, B, 1).
        task: ids of the tasks that the sequences come from, (B,); None for a single-task model.
        weight: importance of each sequence in the losses of the world model, (B,); None where all count 1.
        start: the rows of the replay where the sequences begin, always on the CPU: (B,), or fewer where the
            last ones come from elsewhere; None where unknown.
        largest_weight: what the weights of these were divided by, also on the CPU: (); None where all
            count 1.
        mask: 1.0 where a step happened, as the first ones always did, and 0.0 behind the end of a sequence,
            where its last observation is repeated, (H, B, 1); None where all happened.
        num_frames: F, in each stack that `to` is to make; 1 where there is nothing to stack.
        vector: what was observed beside images, (H + 1, B, V); None where nothing was.
        extra: what the agent keeps with every step beside what happened, (H, B, E); None: nothing.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    task: Tensor | None = None
    weight: Tensor | None = None
    start: Tensor | None = None
    largest_weight: Tensor | None = None
    mask: Tensor | None = None
    num_frames: int = 1
    vector: Tensor | None = None
    extra: Tensor | None = None

    @property
    def horizon(self) -> int:
        return self.action.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """Copy to `device`, without waiting for a GPU, and stack frames there, as fewer cross the bus."""
        device = torch.device(device)
        optional = (self.task, self.weight, self.mask, self.vector, self.extra)
        task, weight, mask, vector, extra = (None if x is None else _copy(x, device) for x in optional)
        obs, action, reward, terminated = (_copy(x, device) for x in self[:4])
        if self.num_frames > 1:
            obs = _stack(obs, self.num_frames, mask)
        rest = (task, weight, self.start, self.largest_weight, mask)
        return Batch(obs, action, reward, terminated, *rest, vector=vector, extra=extra)

    def first(self, size: int) -> Batch:
        """Its first sequences."""
        rows = {name: x[:, :size] for name, x in self._asdict().items() if name in _BY_STEP and x is not None}
        task = None if self.task is None else self.task[:size]
        return self._replace(**rows, task=task, weight=None, start=None, largest_weight=None)

    def followed_by(self, other: Batch) -> Batch:
        """Both in one batch; those of `other` lose their rows, and count 1 where only these have weights."""
        pairs = zip(self[:4], other[:4], strict=True)
        obs, action, reward, terminated = (torch.cat([x, y], 1) for x, y in pairs if x is not None)
        task = weight = mask = vector = extra = None
        if self.task is not None and other.task is not None:
            task = torch.cat([self.task, other.task])
        if self.weight is not None:
            beside = self.weight.new_ones(other.action.shape[1]) if other.weight is None else other.weight
            weight = torch.cat([self.weight, beside])
        if self.mask is not None and other.mask is not None:
            mask = torch.cat([self.mask, other.mask], 1)
        if self.vector is not None and other.vector is not None:
            vector = torch.cat([self.vector, other.vector], 1)
        if self.extra is not None and other.extra is not None:
            extra = torch.cat([self.extra, other.extra], 1)
        optional = (task, weight, self.start, self.largest_weight, mask, self.num_frames, vector, extra)
        return Batch(obs, action, reward, terminated, *optional)


def observations(batch: Batch, steps: int | slice) -> Observation:
    """What the model encodes of some steps of a batch on its device, (B, ...) or (T, B, ...)."""
    obs = batch.obs[steps]
    return obs if batch.vector is None else ImageAndVector(obs, batch.vector[steps])


def gather(source: np.ndarray, rows: np.ndarray, pin_memory: bool) -> Tensor:
    """Rows of an array as a tensor.

    Args:
        source: (N, ...).
        rows: of any shape.
        pin_memory: where a GPU copies from without waiting. PyTorch gives such memory out again as soon as
            nobody holds it and all copies from it are done.
    """
    shape, kind = (*rows.shape, *source.shape[1:]), torch.from_numpy(source).dtype
    gathered = torch.empty(shape, dtype=kind, pin_memory=pin_memory)
    source.take(rows, 0, out=gathered.numpy(), mode="clip")  # "raise" would fill a buffer of NumPy's first
    return gathered


def _copy(x: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and x.device.type == "cpu" and not x.is_pinned():
        x = x.pin_memory()  # from other memory the copy would wait
    return x.to(device, non_blocking=True)


def _stack(frames: Tensor, num: int, mask: Tensor | None) -> Tensor:
    """Stacks (T - num + 1, B, num * C, ...) from frames (T, B, C, ...), where the first `num` make the first.

    Steps that the mask (T - num, B, 1) leaves out repeat the stack before them.
    """
    steps, size = len(frames) - num + 1, frames.shape[1]

    def count(end: int) -> Tensor:
        return torch.arange(end, device=frames.device)

    oldest = count(steps)[:, None].expand(steps, size)
    if mask is not None:
        oldest = torch.cat([torch.zeros_like(oldest[:1]), mask[..., 0].long().cumsum(0)])
    rows = (oldest[..., None] + count(num)) * size + count(size)[:, None]  # (steps, B, num)
    stacks = frames.flatten(0, 1).index_select(0, rows.flatten())
    return stacks.unflatten(0, rows.shape).flatten(2, 3)
