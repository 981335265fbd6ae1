"""Transitions in fixed memory.

Rows form one ring; each holds an observation and what followed it (action, reward, terminated). A row
knows the row of its next step, so that an episode may arrive in fragments that interleave with those of
other environments. A row is a valid start once `horizon` steps of its episode follow it, or one, where short
sequences are allowed.

Of stacked images a row holds the newest frame alone, and knows the row of the frame before it. A row whose
older frames have been overwritten is no start any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tdmpc_ray.core.checks import require_finite
from tdmpc_ray.errors import UserError
from tdmpc_ray.observations import ObsArray, parts_of

# Checkpoints write a replay in chunks of about so many bytes, and no more chunks than this.
_CHUNK_BYTES = 1 << 19
_MAX_CHUNKS = 1024


@dataclass
class Lane:
    """The open end of one episode.

    Attributes:
        step: index of the episode's step whose observation the last row holds.
        tail: the episode's last rows as counts of all rows ever written, at most horizon + 1.
    """

    step: int
    tail: deque[int]


class Ring:
    """Rows of fixed number: O(1) insertion; says which rows can be sampled from.

    Args:
        capacity: rows; an episode of T transitions takes T + 1.
        obs_shape: (O,) for vectors, kept as float32; (C, height, width) for stacked frames, kept as uint8.
        action_dim: A.
        horizon: H; samples are sequences of H transitions.
        num_frames: in a stack of C channels; 1 for vectors.
        num_tasks: whose transitions are kept apart by their ids; 0 for a single task.
        allow_short: every transition starts a sequence, which the end of its episode, or of what has come of
            it, may cut short; a mask tells which steps happened. False: all sequences are whole.
        rows: fewer than `capacity`, where it is known that no more will be filled.
        vector_dim: V, of the vector that is observed beside frames; 0: there is none.
        extra_dim: E, numbers that the agent keeps with every step beside what happened.

    Attributes:
        capacity: rows that there are; `asked_capacity` is the argument.
        left_out: transitions that are in no sequence, as fewer than H came in a row.
        chunk_rows: rows of a chunk, the unit in which checkpoints write the replay.
        changed: chunks whose rows differ from what the last checkpoint wrote; whoever writes one clears it.
    """

    def __init__(
        self,
        capacity: int,
        obs_shape: Sequence[int],
        action_dim: int,
        horizon: int,
        num_frames: int = 1,
        num_tasks: int = 0,
        allow_short: bool = False,
        rows: int | None = None,
        vector_dim: int = 0,
        extra_dim: int = 0,
    ) -> None:
        if capacity <= horizon:
            raise UserError(f"data.capacity={capacity} must exceed planner.horizon={horizon}")
        self.asked_capacity, capacity = capacity, capacity if rows is None else rows
        self.capacity, self.horizon, self.num_frames = capacity, horizon, num_frames
        channels, *size = obs_shape
        # numpy.zeros maps memory lazily: an unfilled replay costs only what has been written.
        self.obs = np.zeros((capacity, channels // num_frames, *size), np.uint8 if size else np.float32)
        self.vector = np.zeros((capacity, vector_dim), np.float32)
        self.action = np.zeros((capacity, action_dim), np.float32)
        self.reward = np.zeros(capacity, np.float32)
        self.extra = np.zeros((capacity, extra_dim), np.float32)
        self.terminated = np.zeros(capacity, np.bool_)
        self.next_row = np.full(capacity, -1, np.int32)
        self.valid = np.zeros(capacity, np.bool_)
        stacked = capacity if num_frames > 1 else 0
        self.prev_row = np.zeros(stacked, np.int32)  # of the frame before; of the row itself at the first
        self.torn = np.zeros(stacked, np.bool_)  # an older frame is gone
        self.num_tasks = num_tasks
        self.task = np.zeros(capacity if num_tasks else 0, np.int16)
        row_bytes = sum(x[0].nbytes for x in (self.obs, self.vector, self.action, self.extra)) + 13
        self.chunk_rows = max(_CHUNK_BYTES // row_bytes, -(-capacity // _MAX_CHUNKS))
        self.changed = np.zeros(-(-capacity // self.chunk_rows), np.bool_)
        self.allow_short = allow_short
        self.num_valid = self.rows_written = self.transitions_added = self.left_out = 0
        self.lanes: dict[str, Lane] = {}

    def __len__(self) -> int:
        """Rows held now."""
        return min(self.rows_written, self.capacity)

    def clear(self) -> None:
        """Forget everything."""
        self._retire(np.flatnonzero(self.valid))
        self.rows_written = self.transitions_added = self.left_out = 0
        self.lanes = {}

    def add(
        self,
        episode_id: str,
        start: int,
        obs: ObsArray,
        action: np.ndarray,
        reward: np.ndarray,
        *,
        terminated: bool,
        done: bool,
        task: int = 0,
        extra: np.ndarray | None = None,
    ) -> None:
        """Append a fragment of an episode.

        A fragment that does not continue where the episode's last one ended (because one in between was
        lost) starts a sequence of its own: no sample ever crosses the gap.

        Args:
            episode_id: names the episode that the fragment belongs to.
            start: index of the fragment's first step within its episode.
            obs: (T + 1, *obs_shape), of two parts also (T + 1, V); the last row is what was observed after
                the last action.
            action: (T, A).
            reward: (T,).
            terminated: the task itself ended with the last step.
            done: no fragment of this episode follows (terminated or truncated).
            task: id of the episode's task, where there are several.
            extra: (T, E), where the agent keeps something with every step.

        Raises:
            UserError: a number is not finite, or the fragment does not fit.
        """
        num_steps = len(action)
        seen, vector = parts_of(obs)
        if len(seen) != num_steps + 1 or len(reward) != num_steps:
            raise ValueError(f"a fragment of {num_steps} actions needs {num_steps + 1} observations")
        beside = {} if vector is None else {"vector": vector}
        beside |= {} if extra is None else {"extra": extra}
        require_finite(start, observation=seen, **beside, action=action, reward=reward)
        if num_steps > self.capacity - self.horizon - 1:
            raise UserError(f"data.capacity={self.capacity} is too small for a fragment of {num_steps} steps")
        lane = self._lane(episode_id, start, num_steps, seen[0])
        rows = np.array([lane.tail[-1], *self._append(num_steps)])
        ring = rows % self.capacity
        self._write(ring, seen, vector, action, reward)
        if extra is not None:
            self.extra[ring[:-1]] = extra
        if self.num_tasks:
            self.task[ring] = task
        self.terminated[ring[-2]] = terminated
        least = 1 if self.allow_short else self.horizon
        self._mark_valid([*lane.tail, *rows[1:].tolist()][:-least], num_steps)

        lane.tail.extend(rows[1:].tolist())
        lane.step += num_steps
        self.transitions_added += num_steps
        if done:
            self.lanes.pop(episode_id, None)
            self._close(lane)
        else:
            self.lanes[episode_id] = lane
            self._forget_the_dead()

    def set_extra(self, rows: np.ndarray, extra: np.ndarray) -> None:
        """Replace what the agent keeps with steps, such as plans made anew: rows (...), values (..., E)."""
        self.extra[rows] = extra
        self.changed[np.unique(rows // self.chunk_rows)] = True

    def _lane(self, episode_id: str, start: int, num_steps: int, first: np.ndarray) -> Lane:
        """The lane that a fragment goes on with, or a new one, which begins with the observation `first`."""
        lane = self.lanes.get(episode_id)
        if lane is not None:
            is_there = lane.tail[-1] >= self.rows_written - self.capacity + num_steps
            if lane.step == start and is_there:
                return lane
            self._close(lane)
        return Lane(start, deque([self._begin(first)], maxlen=self.horizon + 1))

    def _write(
        self,
        ring: np.ndarray,
        seen: np.ndarray,
        vector: np.ndarray | None,
        action: np.ndarray,
        reward: np.ndarray,
    ) -> None:
        """Fill the new rows, and what followed the row before them, whose observation is there already."""
        self.changed[ring[0] // self.chunk_rows] = True
        self.obs[ring[1:]] = seen[1:, -self.obs.shape[1] :]
        if vector is not None:
            self.vector[ring] = vector
        if self.num_frames > 1:
            self.prev_row[ring[1:]] = ring[:-1]
            self.torn[ring[1 : self.num_frames - 1]] = self.torn[ring[0]]
        self.action[ring[:-1]], self.action[ring[-1]] = action, 0.0
        self.reward[ring[:-1]], self.reward[ring[-1]] = reward, 0.0
        self.next_row[ring[:-1]] = ring[1:]

    def _forget_the_dead(self) -> None:
        """Lanes whose ends have been overwritten, once they are the most."""
        if len(self.lanes) > 64 and len(self.lanes) > 2 * sum(map(self._alive, self.lanes.values())):
            for key in [key for key, lane in self.lanes.items() if not self._alive(lane)]:
                self._close(self.lanes.pop(key))

    def _close(self, lane: Lane) -> None:
        """Count what nobody learns from, now that nothing follows."""
        if not self.allow_short and len(lane.tail) <= self.horizon:
            self.left_out += len(lane.tail) - 1

    def _alive(self, lane: Lane) -> bool:
        return lane.tail[-1] >= self.rows_written - self.capacity

    def _begin(self, obs: np.ndarray) -> int:
        """Write the first observation of a sequence, after its older frames where these differ."""
        frames = obs.reshape(self.num_frames, *self.obs.shape[1:])
        if (frames == frames[-1]).all():
            frames = frames[-1:]
        rows = self._append(len(frames))
        ring = np.arange(rows.start, rows.stop) % self.capacity
        self.obs[ring] = frames
        if self.num_frames > 1:
            self.prev_row[ring] = [ring[0], *ring[:-1]]
            self.next_row[ring[:-1]] = ring[1:]
        return rows[-1]

    def _append(self, num: int) -> range:
        """Claim the next `num` rows: what they held before can no longer be sampled."""
        rows = range(self.rows_written, self.rows_written + num)
        ring = after = lost = np.arange(rows.start, rows.stop) % self.capacity
        for _ in range(self.num_frames - 1):  # stacks that reach into these rows
            after = self.next_row[after]
            after = after[after >= 0]
            self.torn[after] = True
            lost = np.union1d(lost, after)
        self._retire(lost[self.valid[lost]])
        self.changed[ring // self.chunk_rows] = True
        self.terminated[ring] = False
        self.next_row[ring] = -1
        if self.num_frames > 1:
            self.torn[ring] = False
        self.rows_written += num
        return rows

    def _mark_valid(self, candidates: list[int], num_new: int) -> None:
        """Rows which `num_new` new rows have given enough followers, unless overwritten meanwhile."""
        oldest = self.rows_written - self.capacity
        ring = np.array([row % self.capacity for row in candidates[-num_new:] if row >= oldest], np.int64)
        if self.num_frames > 1:
            ring = ring[~self.torn[ring]]
        self._enlist(ring)

    def _enlist(self, ring: np.ndarray) -> None:
        """Rows that can be sampled from now on."""
        self.valid[ring] = True
        self.num_valid += len(ring)

    def _retire(self, ring: np.ndarray) -> None:
        """Rows that can be sampled no more."""
        self.valid[ring] = False
        self.num_valid -= len(ring)
