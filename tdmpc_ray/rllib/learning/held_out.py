"""Episodes that are kept from training, and what the losses are on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tdmpc_ray.core.agents.agent import Updater
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.core.replay.validation import is_held_out
from tdmpc_ray.datasets.chunk_store import ChunkStore
from tdmpc_ray.datasets.dataset import DatasetReplay
from tdmpc_ray.rllib.acting.fragments import Fragment
from tdmpc_ray.rllib.acting.module import AgentModule
from tdmpc_ray.rllib.checkpoints.manifest import HELD_OUT
from tdmpc_ray.rllib.checkpoints.saved_replay import SavedReplay

_EPISODES = "held_out_episodes"


class HeldOut:
    """One learner's.

    Losses are drawn by the number of updates alone, so that a run with them takes the updates that it would
    take without, on the episodes that are left.

    Args:
        share: of the episodes.
        replay: for them; a dataset's has them already.
        module: of the learner.
        batch_size: of the learner's updates.
    """

    def __init__(
        self, share: float, replay: SequenceReplay | DatasetReplay, module: AgentModule, batch_size: int
    ) -> None:
        self._share, self._replay, self._module, self._batch_size = share, replay, module, batch_size
        self._episodes = 0  # that have begun, kept from training or not
        self._saved = None if isinstance(replay, DatasetReplay) else SavedReplay(replay)

    def take(self, fragment: Fragment) -> bool:
        """Take a fragment in if it belongs to an episode that is kept from training."""
        assert isinstance(self._replay, SequenceReplay)
        if fragment.episode_id not in self._replay.lanes:
            if fragment.start > 0:  # of an episode that is learned from
                return False
            self._episodes += 1
            if not is_held_out(self._episodes, self._share):
                return False
        self._replay.add(**fragment._asdict())
        return True

    def losses(self, updater: Updater, seen: SequenceReplay | DatasetReplay) -> dict[str, float]:
        """By the metrics' names, on sequences kept from training, and on as many that are learned from."""
        if self._replay.num_valid == 0:
            return {}
        found = {}
        for prefix, replay in (("", self._replay), ("seen_", seen)):
            for name, value in updater.validate(*self._batch(replay)).items():
                found[f"validation/{prefix}{name}"] = float(value)
        return found

    def _batch(self, replay: SequenceReplay | DatasetReplay) -> tuple[Any, Any]:
        module, seed = self._module, self._module.num_updates
        device = module.networks.device
        rng = np.random.default_rng(seed)
        if isinstance(replay, SequenceReplay):  # without preferring what is foreseen badly
            batch = replay.sample_at(replay.uniform_starts(self._batch_size, rng))
        else:
            batch = replay.sample(self._batch_size, rng)
        batch = batch.to(device)
        generator = torch.Generator(device).manual_seed(seed)
        noise = module.agent.draw_update(module.networks, batch.horizon, self._batch_size, generator)
        return batch, noise

    def save(self, store: ChunkStore) -> dict[str, Any]:
        """See `SavedReplay.save`; of a dataset nothing."""
        if self._saved is None:
            return {}
        return {HELD_OUT: self._saved.save(store, {_EPISODES: np.array([self._episodes])})}

    def load(self, store: ChunkStore, shard: Mapping[str, Any], salvage: bool) -> list[str]:
        """See `SavedReplay.load`; a checkpoint without them begins with none."""
        if self._saved is None or HELD_OUT not in shard:
            return []
        arrays, left_out = self._saved.load(store, shard[HELD_OUT], salvage)
        self._episodes = int(arrays[_EPISODES][0])
        return left_out
