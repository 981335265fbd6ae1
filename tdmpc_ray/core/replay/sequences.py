"""The replay: a ring of rows, sampled as strict in-episode sequences."""

from __future__ import annotations

import numpy as np
import torch

from tdmpc_ray.core.batch import Batch, gather
from tdmpc_ray.core.replay.ring import Ring
from tdmpc_ray.errors import UserError


class SequenceReplay(Ring):
    """Samples uniformly over the ring's valid starts."""

    def require_starts(self) -> None:
        """Refuse to be sampled from as long as there is nothing.

        Raises:
            UserError: no row is a valid start.
        """
        if self.num_valid == 0:
            steps = "a step" if self.allow_short else f"planner.horizon={self.horizon} steps"
            raise UserError(
                f"no episode in the replay has {steps} yet: raise data.seed_steps or lower planner.horizon"
            )

    def sample_rows(self, batch_size: int, rng: np.random.Generator) -> np.ndarray:
        """Draw starts with replacement, and the rows that follow them: (H + 1, B).

        The last row of a short sequence is repeated.

        Raises:
            UserError: there are none yet.
        """
        self.require_starts()
        return self._sequences(self._draw_starts(batch_size, rng))

    def _sequences(self, starts: np.ndarray) -> np.ndarray:
        rows = np.empty((self.horizon + 1, len(starts)), np.int64)
        rows[0] = starts
        for t in range(self.horizon):
            following = self.next_row[rows[t]]
            rows[t + 1] = np.where(following < 0, rows[t], following) if self.allow_short else following
        return rows

    def _draw_starts(self, batch_size: int, rng: np.random.Generator) -> np.ndarray:
        return self.uniform_starts(batch_size, rng)

    def uniform_starts(self, batch_size: int, rng: np.random.Generator) -> np.ndarray:
        """Rows, drawn uniformly over all valid starts, whatever `sample` prefers."""
        size = len(self)
        starts = np.empty(0, np.int64)
        if self.num_valid * 4 > size:  # nearly always: most rows are valid starts, so reject the others
            while len(starts) < batch_size:
                rows = rng.integers(size, size=2 * batch_size)
                starts = np.concatenate([starts, rows[self.valid[rows]]])
            return starts[:batch_size]
        return rng.choice(np.flatnonzero(self.valid[:size]), batch_size)

    def sample(self, batch_size: int, rng: np.random.Generator, pin_memory: bool = False) -> Batch:
        """Draw a time-major batch of `batch_size` sequences on the CPU; `Batch.to` stacks its frames."""
        return self._batch_of(self.sample_rows(batch_size, rng), pin_memory)

    def rows_at(self, starts: np.ndarray) -> np.ndarray:
        """Of the steps of the sequences at some starts, (H, B)."""
        return self._sequences(starts)[:-1]

    def sample_at(self, starts: np.ndarray) -> Batch:
        """The sequences at rows that are valid starts, as `sample` gives them, without weights."""
        return self._batch_of(self._sequences(starts), pin_memory=False)

    def _batch_of(self, rows: np.ndarray, pin_memory: bool) -> Batch:
        frames, steps = rows, rows[:-1]
        mask = (rows[1:] != steps).astype(np.float32) if self.allow_short else None
        for _ in range(self.num_frames - 1):
            frames = np.concatenate([self.prev_row[frames[:1]], frames])
        return Batch(
            gather(self.obs, frames, pin_memory),
            torch.from_numpy(self.action.take(steps, 0)),  # which is faster than by brackets
            torch.from_numpy(self.reward[steps]).unsqueeze(-1),
            torch.from_numpy(self.terminated[steps].astype(np.float32)).unsqueeze(-1),
            torch.from_numpy(self.task[rows[0]].astype(np.int64)) if self.num_tasks else None,
            start=torch.from_numpy(rows[0]),
            mask=None if mask is None else torch.from_numpy(mask).unsqueeze(-1),
            num_frames=self.num_frames,
            vector=gather(self.vector, rows, pin_memory) if self.vector.shape[1] else None,
            extra=gather(self.extra, steps, pin_memory) if self.extra.shape[1] else None,
        )
