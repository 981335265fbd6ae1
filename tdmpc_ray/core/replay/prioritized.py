"""Replay that returns to what the model predicts badly (Schaul et al., 2016, the proportional form)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import DataConfig
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.core.replay.sum_tree import SumTree

_SMALLEST = 1e-6  # a sequence that is predicted without error can still be drawn
_LARGEST = 1e6  # and others beside one that is predicted absurdly


class PrioritizedReplay(SequenceReplay):
    """Draws a start with probability in proportion to priority ** alpha.

    Args:
        alpha: 0 would be uniform.
        beta: importance weights are (starts * probability) ** -beta, over the largest in the batch.
        new: priority of sequences that no update has seen: "max", the largest priority so far, or "one".
        args: as for `SequenceReplay`, and `kwargs`.

    Attributes:
        share_of: starts per replica, where this replay is one of several that give equal parts of each batch;
            None: its own.
    """

    def __init__(self, *args: Any, alpha: float, beta: float, new: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.alpha, self.beta, self.new = alpha, beta, new
        self.largest = 1.0
        self.share_of: float | None = None
        self._tree = SumTree(self.capacity)

    def _enlist(self, ring: np.ndarray) -> None:
        super()._enlist(ring)
        self._tree.set(ring, (self.largest if self.new == "max" else 1.0) ** self.alpha)

    def _retire(self, ring: np.ndarray) -> None:
        super()._retire(ring)
        self._tree.set(ring, 0.0)

    def _draw_starts(self, batch_size: int, rng: np.random.Generator) -> np.ndarray:
        return self._tree.draw(batch_size, rng)

    def sample(self, batch_size: int, rng: np.random.Generator, pin_memory: bool = False) -> Batch:
        """As of any replay, with importance weights."""
        batch = super().sample(batch_size, rng, pin_memory)
        assert batch.start is not None
        probability = self._tree[batch.start.numpy()] / self._tree.total
        weight = ((self.share_of or self.num_valid) * probability) ** -self.beta
        largest = weight.max()
        return batch._replace(
            weight=torch.from_numpy((weight / largest).astype(np.float32)),
            largest_weight=torch.tensor(largest, dtype=torch.float32),
        )

    def set_priorities(self, start: torch.Tensor, priority: torch.Tensor) -> None:
        """Replace the priorities of sequences that an update has seen.

        Args:
            start: `Batch.start`, (B,); nothing may have been added since it was drawn.
            priority: absolute TD errors on the CPU, (B,); those that are not finite change nothing.
        """
        values, rows = priority.double().numpy(), start.numpy()
        finite = np.isfinite(values)
        values, rows = np.clip(values[finite], _SMALLEST, _LARGEST), rows[finite]
        self.largest = max(self.largest, float(values.max(initial=0.0)))
        self._tree.set(rows, values**self.alpha)

    @property
    def priorities(self) -> np.ndarray:
        """Of all rows, 0 where none starts there, to the power of alpha: what a checkpoint keeps."""
        return self._tree[np.arange(len(self))]

    def restore_priorities(self, priorities: np.ndarray, largest: float) -> None:
        """Take over what `priorities` and `largest` were."""
        self._tree = SumTree(self.capacity)
        self._tree.set(np.arange(len(priorities)), priorities)
        self.largest = largest


def make_replay(
    data: DataConfig,
    obs_shape: Sequence[int],
    action_dim: int,
    horizon: int,
    num_frames: int = 1,
    num_tasks: int = 0,
    allow_short: bool = False,
    rows: int | None = None,
    vector_dim: int = 0,
    extra_dim: int = 0,
) -> SequenceReplay:
    """The replay that a config asks for; the rest as for `SequenceReplay`."""
    counts = (num_frames, num_tasks, allow_short, rows, vector_dim, extra_dim)
    shape = (data.capacity, obs_shape, action_dim, horizon, *counts)
    if data.priority_alpha == 0:
        return SequenceReplay(*shape)
    return PrioritizedReplay(
        *shape, alpha=data.priority_alpha, beta=data.priority_beta, new=data.priority_new
    )
