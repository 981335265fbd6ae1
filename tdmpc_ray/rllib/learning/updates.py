"""Several updates in a row, on sequences from a learner's replay."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch

from tdmpc_ray.core.agents.agent import Updater
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.nn.readback import Fence, Readback
from tdmpc_ray.core.parallel import Replicas
from tdmpc_ray.core.replay.prioritized import PrioritizedReplay
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.datasets.dataset import DatasetReplay
from tdmpc_ray.errors import PassingError, UserError
from tdmpc_ray.rllib.acting.module import AgentModule
from tdmpc_ray.rllib.learning.random_streams import RandomStreams

_MAX_SKIPPED_IN_A_ROW = 50
# Updates and seconds after which losses are read, where nobody asks for them before.
_READ_EVERY, _READ_EVERY_S = 50, 1.0


class Losses(NamedTuple):
    """What updates have reported since they were last read."""

    means: dict[str, float]  # of each loss and norm, over the updates that were taken
    num_updates: int  # that were taken
    num_skipped: int  # as loss or gradient were not finite


class UpdateLoop:
    """Draws batches, steps on them and gives the replay its new priorities.

    Nothing in an update waits for the device; `read` does.

    Args:
        module: counts the updates.
        updater: of its networks.
        replay: of this learner.
        demonstrations: mixed into each batch; None: there are none.
        streams: of this learner.
        batch_size: of this learner's part.
        replicas: the other learners; None: there are none.
    """

    def __init__(
        self,
        module: AgentModule,
        updater: Updater,
        replay: SequenceReplay | DatasetReplay,
        demonstrations: SequenceReplay | DatasetReplay | None,
        streams: RandomStreams,
        batch_size: int,
        replicas: Replicas | None,
    ) -> None:
        self._module, self._updater, self._streams, self._replicas = module, updater, streams, replicas
        self._replay, self._demonstrations, self._batch_size = replay, demonstrations, batch_size
        self._device = streams.torch.device
        # Priorities need the step before; on a CPU a thread would take a core from the step, unless it waits
        # for a disk.
        is_prioritized = isinstance(replay, PrioritizedReplay)
        has_files = any(isinstance(source, DatasetReplay) for source in (replay, demonstrations))
        self._draws_ahead = (has_files or self._device.type == "cuda") and not is_prioritized
        self._skipped_in_a_row = 0
        self._read_at = time.perf_counter()
        self._unread: list[dict[str, torch.Tensor]] = []
        # Rows of the replay and of the demonstrations, and the TD errors of both.
        self._seen: tuple[list[torch.Tensor | None], Readback] | None = None
        self._has_learned = False  # from any update since this process began
        self._waited_s = 0.0

    def run(self, num_updates: int) -> None:
        """Take `num_updates` gradient steps.

        Raises:
            UserError: there is nothing to learn from yet.
        """
        module, streams = self._module, self._streams
        if self._replicas is not None and isinstance(self._replay, PrioritizedReplay):
            self._replay.share_of = self._replicas.mean(self._replay.num_valid, self._device)
        with closing(self._batches(num_updates)) as batches:
            for update, (batch, starts) in enumerate(batches, module.num_updates):
                heads = streams.of_heads(update)
                noise = module.agent.draw_update(
                    module.networks, batch.horizon, self._batch_size, streams.torch, heads
                )
                self._unread.append(self._updater.step(self._reanalyzed(batch, update), noise))
                # Priorities are set one update late, so that no step waits for a GPU to have done its own.
                self._set_priorities()
                if self._updater.td_error is not None:
                    self._seen = starts, Readback(self._updater.td_error)
        self._set_priorities()  # before anything is added to the replay
        module.count_updates(num_updates)

    def _reanalyzed(self, batch: Batch, update: int) -> Batch:
        """The batch with what the agent keeps with its steps as it sees them now; the replay gets it, too."""
        module, replay = self._module, self._replay
        if batch.extra is None or batch.start is None or not isinstance(replay, SequenceReplay):
            return batch
        discount = module.discounts if isinstance(module.discount, list) else module.discount
        cfg = replace(module.cfg, planner=module.cfg.planner.at(update / module.cfg.data.utd_ratio))
        found = module.agent.reanalyze(module.networks, batch, cfg, update, self._streams.torch, discount)
        if found is None:
            return batch
        size = found.shape[1]
        replay.set_extra(replay.rows_at(batch.start[:size].numpy()), Readback(found).value().numpy())
        return batch._replace(extra=torch.cat([found, batch.extra[:, size:]], 1))

    def draw(self) -> Batch:
        """A batch on the device, as the next update's."""
        return self._on_device(self._draw(0))[0]

    def take_waited_s(self) -> float:
        """Seconds since the last call that updates waited for batches to be drawn."""
        waited_s, self._waited_s = self._waited_s, 0.0
        return waited_s

    @property
    def is_due(self) -> bool:
        """Whether to `read`, which holds up a GPU, and costs a CPU a tenth of a small update."""
        return len(self._unread) >= _READ_EVERY or time.perf_counter() - self._read_at > _READ_EVERY_S

    def read(self) -> Losses:
        """What the updates since the last call have reported; waits until the device has done them.

        Raises:
            UserError: nearly all updates are skipped.
        """
        self._read_at = time.perf_counter()
        if not self._unread:
            return Losses({}, 0, 0)
        names = list(self._unread[0])
        rows = [torch.stack(list(metrics.values())) for metrics in self._unread]
        self._unread = []
        values = Readback(torch.stack(rows)).value()  # (updates, names)
        is_skipped = values[:, names.index("skipped")] > 0
        self._count_skipped(is_skipped.tolist())
        taken = values[~is_skipped]
        means = dict(zip(names, taken.mean(0).tolist(), strict=True)) if len(taken) else {}
        means.pop("skipped", None)
        return Losses(means, len(taken), int(is_skipped.sum()))

    def _count_skipped(self, is_skipped: list[bool]) -> None:
        self._has_learned |= not all(is_skipped)
        for skipped in is_skipped:
            self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        if self._skipped_in_a_row >= _MAX_SKIPPED_IN_A_ROW:
            kind = PassingError if self._has_learned else UserError
            raise kind(
                f"loss or gradient was not finite in the last {self._skipped_in_a_row} updates of "
                f"{self._module.num_updates:,}: lower update.lr, and go on from the last checkpoint"
            )

    def _batches(self, num: int) -> Generator[tuple[Batch, list[torch.Tensor | None]], None, None]:
        """`num` batches on the device, with the rows of their parts.

        A GPU's next one is drawn by a thread while the step on this one is launched, and one from a dataset's
        files while it goes on. There are never more than two in host memory: the thread first waits until
        the one before has been copied.
        """
        if num == 1 or not self._draws_ahead:
            for index in range(num):
                yield self._on_device(self._wait_for(partial(self._draw, index)))
            return
        copied = None
        with ThreadPoolExecutor(1) as thread:
            drawn = thread.submit(self._draw, 0)
            for index in range(num):
                parts = self._wait_for(drawn.result)
                if index + 1 < num:
                    drawn = thread.submit(self._draw, index + 1, copied)
                batch, copied = self._on_device(parts), Fence(self._device)
                yield batch

    def _wait_for(self, batch: Callable[[], list[Batch]]) -> list[Batch]:
        began = time.perf_counter()
        parts = batch()
        self._waited_s += time.perf_counter() - began
        return parts

    def _draw(self, index: int, after: Fence | None = None) -> list[Batch]:
        """Own sequences and demonstrations, on the host, once a device has come so far.

        Args:
            index: of the update among those of this `run`.
            after: what the device has to have done.
        """
        if after is not None:
            after.wait()
        draws, pin_memory = self._streams.numpy, self._device.type == "cuda"
        if self._demonstrations is None:
            return [self._replay.sample(self._batch_size, draws, pin_memory)]
        # Counted by updates, as env runners do for schedules of the planner.
        data = self._module.cfg.data
        step = (self._module.num_updates + index) / data.utd_ratio
        num_shown = data.num_demonstrations(self._batch_size, step)
        own = self._replay.sample(self._batch_size - num_shown, draws, pin_memory)
        return [own, self._demonstrations.sample(num_shown, draws, pin_memory)]

    def _on_device(self, parts: list[Batch]) -> tuple[Batch, list[torch.Tensor | None]]:
        first, *rest = (part.to(self._device) for part in parts)
        starts = [part.start for part in parts]
        return first.followed_by(*rest) if rest else first, starts

    def _set_priorities(self) -> None:
        if self._seen is not None:
            starts, read = self._seen
            error, first = read.value(), 0
            for replay, rows in zip((self._replay, self._demonstrations), starts, strict=False):
                if rows is None:  # of a dataset, which is always the last part
                    break
                if isinstance(replay, PrioritizedReplay):
                    replay.set_priorities(rows, error[first : first + len(rows)])
                first += len(rows)
        self._seen = None
