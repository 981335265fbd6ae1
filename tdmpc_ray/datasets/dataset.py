"""Sequences drawn from a dataset's files, as a replay draws them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from mmap import MADV_DONTNEED, mmap
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.replay.validation import EpisodePart
from tdmpc_ray.datasets.chunk import Columns, map_chunk
from tdmpc_ray.datasets.episode import Episode
from tdmpc_ray.datasets.manifest import Part, TaskEntry, read_manifest
from tdmpc_ray.datasets.writer import CHUNKS
from tdmpc_ray.envs.images import FRAMES, stack_frames
from tdmpc_ray.errors import UserError, unknown

Rows = NDArray[np.int64]
_MAPPED_PER_SEQUENCE = 2 << 20  # bytes, as measured: in each of five columns, what lies around the rows
_MOST_MAPPED = 1 << 30


class Dataset:
    """What lies in a folder; opens its chunks when they are read.

    Args:
        folder: of the dataset.

    Raises:
        UserError: it is none, or its manifest is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, read_manifest(folder)
        self._open: dict[str, tuple[Columns, mmap]] = {}

    @property
    def bytes(self) -> int:
        """On disk."""
        files = {part.chunk for part in self.manifest.parts}
        return sum((self.folder / CHUNKS / name).stat().st_size for name in files)

    def columns(self, part: Part) -> Columns:
        """The columns of a part, mapped into memory.

        Raises:
            DamagedCheckpoint: its file is missing or damaged.
        """
        if part.chunk not in self._open:
            self._open[part.chunk] = map_chunk(self.folder / CHUNKS / part.chunk)
        return self._open[part.chunk][0]

    def unmap_pages(self) -> None:
        """Give back what has been read of the files; it stays in the page cache while there is room."""
        for _, mapping in self._open.values():
            mapping.madvise(MADV_DONTNEED)

    def episodes(self) -> Iterator[Episode]:
        """All of them, in the order in which they lie there."""
        for part in self.manifest.parts:
            task, columns = self.manifest.tasks[part.task], self.columns(part)
            ends = np.cumsum(columns["length"].astype(np.int64) + 1)
            for number, (first, end) in enumerate(pairwise([0, *ends.tolist()])):
                rows, steps = slice(first, end), slice(first, end - 1)
                obs, vector = columns["obs"][rows], columns.get("vector")
                success = int(columns["success"][number])
                yield Episode(
                    f"{self.folder}, chunk {part.chunk[:8]}, episode {number}",
                    stack_frames(obs.astype(np.uint8)) if task.is_images else obs.astype(np.float32),
                    columns["action"][steps].astype(np.float32),
                    columns["reward"][steps].astype(np.float32),
                    bool(columns["terminated"][end - 2]),
                    None if vector is None else vector[rows].astype(np.float32),
                    task.name,
                    None if success < 0 else bool(success),
                )

    def of_tasks(self, names: Sequence[str]) -> list[TaskEntry]:
        """Tasks by name.

        Raises:
            UserError: there is none of a name.
        """
        known = [task.name for task in self.manifest.tasks]
        for name in names:
            if name not in known:
                raise UserError(f"{self.folder}: {unknown('task', name, known)}")
        return [self.manifest.tasks[known.index(name)] for name in names]


class DatasetReplay:
    """Draws sequences uniformly over all those of a dataset's episodes; see `SequenceReplay`.

    Args:
        dataset: to draw from.
        tasks: to draw, whose ids are their places.
        obs_shape: of the model, to which vectors are filled up with zeros.
        action_dim: likewise.
        horizon: H.
        allow_short: see `SequenceReplay`.
        part: only these of the episodes; None: all.
        shard: of several learners, this one's number and how many they are: each draws from parts of its own.

    Raises:
        UserError: there is nothing to draw; a task observes more than the model.
    """

    def __init__(
        self,
        dataset: Dataset,
        tasks: Sequence[str],
        obs_shape: Sequence[int],
        action_dim: int,
        horizon: int,
        *,
        is_set: bool = False,
        allow_short: bool = False,
        part: EpisodePart | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self._dataset, self.horizon, self._is_set = dataset, horizon, is_set
        self._part = part
        self._ends_of_episodes: dict[
            int, tuple[Rows, NDArray[np.bool_]]
        ] = {}  # of parts that were drawn from
        self._drawn = 0  # sequences since pages were last given back
        self._obs_shape, self._action_dim, self.allow_short = tuple(obs_shape), action_dim, allow_short
        entries = dataset.of_tasks(tasks)
        for entry in entries:
            _require_fit(dataset, entry, obs_shape, action_dim)
        places = {dataset.manifest.tasks.index(entry): place for place, entry in enumerate(entries)}
        chosen = [part for part in dataset.manifest.parts if part.task in places]
        rank, size = shard
        self._parts = chosen[rank::size] if len(chosen) >= size else chosen
        self._episodes_before = np.cumsum([0, *(part.episodes for part in self._parts)])
        self._task_of = np.array([places[part.task] for part in self._parts], np.int64)
        self._ends = np.cumsum([part.rows for part in self._parts])
        self.num_frames = FRAMES if len(self._obs_shape) == 3 else 1
        self.num_tasks = len(entries) if is_set else 0
        self.vector_dim = entries[0].vector_dim
        self.require_starts()

    @cached_property
    def num_valid(self) -> int:
        """Sequences that can be drawn."""
        return sum(map(self._starts, range(len(self._parts))))

    @cached_property
    def transitions_added(self) -> int:
        """Steps of all episodes."""
        if self._part is None:
            return sum(part.steps for part in self._parts)
        return sum(int(self._lengths(index).sum()) for index in range(len(self._parts)))

    @cached_property
    def left_out(self) -> int:
        """Steps that are in no sequence, as their episode is shorter than H."""
        if self.allow_short:
            return 0
        lengths = map(self._lengths, range(len(self._parts)))
        return int(sum(n[n < self.horizon].sum() for n in lengths))

    def _lengths(self, index: int) -> NDArray[np.int32]:
        """Steps of each of a part's episodes, 0 of those that are not drawn."""
        lengths = self._dataset.columns(self._parts[index])["length"].astype(np.int32)
        return lengths if self._part is None else lengths * self._chosen(index)

    def _chosen(self, index: int) -> NDArray[np.bool_]:
        """Which of a part's episodes are drawn."""
        assert self._part is not None
        first, last = self._episodes_before[index : index + 2]
        return self._part.has(np.arange(first, last) + 1)

    def _is_chosen(self, index: int, row: Rows) -> NDArray[np.bool_]:
        """Whether rows of a part belong to such an episode."""
        if self._part is None:
            return np.ones(len(row), np.bool_)
        if index not in self._ends_of_episodes:
            lengths = self._dataset.columns(self._parts[index])["length"].astype(np.int64)
            self._ends_of_episodes[index] = np.cumsum(lengths + 1), self._chosen(index)
        ends, chosen = self._ends_of_episodes[index]
        return np.asarray(chosen[np.searchsorted(ends, row, side="right")])

    def _starts(self, index: int) -> int:
        least = 1 if self.allow_short else self.horizon
        return int(np.maximum(self._lengths(index) - least + 1, 0).sum())

    def require_starts(self) -> None:
        """Refuse a dataset without a single sequence.

        Raises:
            UserError: says so.
        """
        if not any(map(self._starts, range(len(self._parts)))):
            steps = "a step" if self.allow_short else f"planner.horizon={self.horizon} steps"
            if self._part is not None and self._part.is_held_out:
                raise UserError(
                    f"data.validation_share={self._part.share:g} keeps no episode of {self._dataset.folder} "
                    "from training: raise it, or leave it out"
                )
            raise UserError(f"no episode in {self._dataset.folder} has {steps}")

    def sample(self, batch_size: int, rng: np.random.Generator, pin_memory: bool = False) -> Batch:
        """Draw a time-major batch of `batch_size` sequences on the CPU; `Batch.to` stacks its frames."""
        self._bound_memory(batch_size)
        part, row, to_go = self._draw_starts(batch_size, rng)
        order = np.argsort(part, kind="stable")
        part, row, to_go = part[order], row[order], to_go[order]
        steps = np.minimum(np.arange(self.horizon + 1)[:, None], to_go)  # (H + 1, B)
        out = _Buffers(self, batch_size, pin_memory)
        bounds = np.flatnonzero(np.diff(part, prepend=-1, append=-1))
        for first, last in pairwise(bounds):
            columns = self._dataset.columns(self._parts[part[first]])
            out.fill(slice(first, last), columns, row[first:last] + steps[:, first:last])
        happened = np.arange(self.horizon)[:, None, None] < to_go[:, None]  # (H, B, 1)
        return Batch(
            out.obs,
            out.action,
            out.reward.unsqueeze(-1),
            out.terminated.unsqueeze(-1),
            torch.from_numpy(self._task_of[part]) if self._is_set else None,
            mask=torch.from_numpy(happened.astype(np.float32)) if self.allow_short else None,
            num_frames=self.num_frames,
            vector=out.vector,
        )

    def _bound_memory(self, num: int) -> None:
        """Linux maps many pages around each that is read: soon the whole of a large dataset."""
        self._drawn += num
        if self._drawn * _MAPPED_PER_SEQUENCE > _MOST_MAPPED:
            self._drawn = num
            self._dataset.unmap_pages()

    def _draw_starts(self, num: int, rng: np.random.Generator) -> tuple[Rows, Rows, Rows]:
        """Parts, their rows, and the steps behind each, (num,); where no sequence starts, drawn anew."""
        least, found, missing = 1 if self.allow_short else self.horizon, [], num
        while missing > 0:
            drawn = rng.integers(self._ends[-1], size=missing + 16)
            part = np.searchsorted(self._ends, drawn, side="right")
            row = drawn - np.concatenate([[0], self._ends])[part]
            to_go = np.empty(len(row), np.int64)
            for index in np.unique(part):
                own = part == index
                left = self._dataset.columns(self._parts[index])["to_go"][row[own]]
                to_go[own] = np.where(self._is_chosen(index, row[own]), left, 0)
            good = np.flatnonzero(to_go >= least)[:missing]
            found.append((part[good], row[good], to_go[good]))
            missing -= len(good)
        part, row, to_go = (np.concatenate(column) for column in zip(*found, strict=True))
        return part, row, to_go


class _Buffers:
    """The tensors of a batch, filled part by part."""

    def __init__(self, replay: DatasetReplay, size: int, pin: bool) -> None:
        horizon, frames = replay.horizon, replay.num_frames
        channels, *rest = replay._obs_shape
        kind = torch.uint8 if rest else torch.float32

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, pin_memory=pin)

        self._frames = frames
        self.obs = zeros(horizon + frames, size, channels // frames, *rest, dtype=kind)
        self.action = zeros(horizon, size, replay._action_dim)
        self.reward, self.terminated = zeros(horizon, size), zeros(horizon, size)
        self.vector = zeros(horizon + 1, size, replay.vector_dim) if replay.vector_dim else None

    def fill(self, places: slice, columns: Columns, rows: Rows) -> None:
        """The sequences whose rows (H + 1, b) of a part these are."""
        steps, seen = rows[:-1], rows
        for _ in range(self._frames - 1):
            first = seen[:1]
            before = np.maximum(first - 1, 0)
            same = columns["to_go"][before].astype(np.int64) == columns["to_go"][first].astype(np.int64) + 1
            seen = np.concatenate([np.where(same, before, first), seen])
        obs, action = columns["obs"][seen], columns["action"][steps]
        self.obs.numpy()[:, places, : obs.shape[2]] = obs
        self.action.numpy()[:, places, : action.shape[2]] = action
        self.reward.numpy()[:, places] = columns["reward"][steps]
        self.terminated.numpy()[:, places] = columns["terminated"][steps]
        if self.vector is not None:
            self.vector.numpy()[:, places] = columns["vector"][rows]


def _require_fit(dataset: Dataset, entry: TaskEntry, obs_shape: Sequence[int], action_dim: int) -> None:
    is_larger = len(entry.obs_shape) != len(obs_shape) or entry.obs_shape[0] > obs_shape[0]
    if is_larger or entry.action_dim > action_dim:
        raise UserError(
            f"{dataset.folder}: task '{entry.name}' observes {entry.obs_shape} and acts by "
            f"{entry.action_dim} numbers, the model {list(obs_shape)} and {action_dim}"
        )
