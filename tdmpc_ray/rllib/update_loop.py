"""Several updates in a row, on sequences from a learner's replay."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.parallel import Replicas
from tdmpc_ray.core.prioritized import PrioritizedReplay
from tdmpc_ray.core.replay import SequenceReplay
from tdmpc_ray.core.update import UpdateNoise, Updater
from tdmpc_ray.errors import PassingError, UserError
from tdmpc_ray.rllib.module import TDMPC2RLModule
from tdmpc_ray.rllib.random_streams import RandomStreams

_MAX_SKIPPED_IN_A_ROW = 50


class UpdateLoop:
    """Draws batches, steps on them and gives the replay its new priorities.

    Args:
        module: counts the updates.
        updater: of its world model.
        replay: of this learner.
        demonstrations: mixed into each batch; None: there are none.
        streams: of this learner.
        batch_size: of this learner's part.
        replicas: the other learners; None: there are none.
    """

    def __init__(
        self,
        module: TDMPC2RLModule,
        updater: Updater,
        replay: SequenceReplay,
        demonstrations: SequenceReplay | None,
        streams: RandomStreams,
        batch_size: int,
        replicas: Replicas | None,
    ) -> None:
        self._module, self._updater, self._streams, self._replicas = module, updater, streams, replicas
        self._replay, self._demonstrations, self._batch_size = replay, demonstrations, batch_size
        self._num_shown = module.agent.data.num_demonstrations(batch_size)
        self._skipped_in_a_row = 0
        self._has_learned = False  # from any update since this process began

    def run(self, num_updates: int) -> tuple[dict[str, float], int]:
        """Take `num_updates` gradient steps.

        Returns:
            The mean of each loss and norm; the number of updates that were skipped, as they were not finite.

        Raises:
            UserError: there is nothing to learn from yet, or nearly all updates are skipped.
        """
        module, streams, device = self._module, self._streams, self._streams.torch.device
        if self._replicas is not None and isinstance(self._replay, PrioritizedReplay):
            self._replay.share_of = self._replicas.mean(self._replay.num_valid, device)
        updates = int(module.grad_updates) if self._replicas is not None else 0
        history: dict[str, list[torch.Tensor]] = {}
        seen: Callable[[], None] | None = None
        for update in range(updates, updates + num_updates):
            batch, heads = self._sample().to(device), streams.of_heads(update)
            noise = UpdateNoise.sample(
                module.world_model, batch.horizon, self._batch_size, streams.torch, heads
            )
            for name, value in self._updater.step(batch, noise).items():
                history.setdefault(name, []).append(value)
            # Priorities are set one update late, so that no step waits for a GPU to have finished its own.
            if seen is not None:
                seen()
            seen = self._new_priorities(batch)
        if seen is not None:
            seen()
        module.grad_updates += num_updates
        values = torch.stack([torch.stack(column) for column in history.values()]).cpu()  # (names, updates)
        is_skipped = values[list(history).index("skipped")] > 0
        self._count_skipped(is_skipped.tolist())
        means = values[:, ~is_skipped].mean(1).tolist()
        losses = dict(zip(history, means, strict=True)) if not is_skipped.all() else {}
        losses.pop("skipped", None)
        return losses, int(is_skipped.sum())

    def _count_skipped(self, is_skipped: list[bool]) -> None:
        self._has_learned |= not all(is_skipped)
        for skipped in is_skipped:
            self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        if self._skipped_in_a_row >= _MAX_SKIPPED_IN_A_ROW:
            kind = PassingError if self._has_learned else UserError
            raise kind(
                f"loss or gradient was not finite in the last {self._skipped_in_a_row} updates of "
                f"{int(self._module.grad_updates):,}: lower update.lr, and go on from the last checkpoint"
            )

    def _sample(self) -> Batch:
        draws = self._streams.numpy
        if self._demonstrations is None:
            return self._replay.sample(self._batch_size, draws)
        own = self._replay.sample(self._batch_size - self._num_shown, draws)
        return own.followed_by(self._demonstrations.sample(self._num_shown, draws))

    def _new_priorities(self, batch: Batch) -> Callable[[], None] | None:
        replay, error = self._replay, self._updater.td_error
        if not isinstance(replay, PrioritizedReplay) or error is None or batch.start is None:
            return None
        return partial(replay.set_priorities, batch.start, error[: len(batch.start)])
