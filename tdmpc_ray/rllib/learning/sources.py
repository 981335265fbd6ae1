"""What a learner draws sequences from: the run's own replay or a dataset, and demonstrations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tdmpc_ray.core.replay.prioritized import make_replay
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.core.replay.validation import EpisodePart
from tdmpc_ray.datasets.dataset import Dataset, DatasetReplay
from tdmpc_ray.datasets.demonstrations import load_demonstrations
from tdmpc_ray.datasets.manifest import is_dataset
from tdmpc_ray.envs.images import FRAMES
from tdmpc_ray.envs.spaces import Shapes
from tdmpc_ray.rllib.acting.module import AgentModule
from tdmpc_ray.rllib.checkpoints.saved_replay import NothingSaved, SavedReplay
from tdmpc_ray.rllib.learning.held_out import HeldOut
from tdmpc_ray.rllib.learning.replay_memory import held_out_rows, replay_rows, require_memory


class Sources(NamedTuple):
    """Of one learner.

    Attributes:
        replay: what each batch is drawn from.
        saved: keeps it in checkpoints.
        demonstrations: mixed into each batch; None: there are none.
        held_out: kept from training; None: nothing is.
    """

    replay: SequenceReplay | DatasetReplay
    saved: SavedReplay | NothingSaved
    demonstrations: SequenceReplay | DatasetReplay | None
    held_out: HeldOut | None


def open_sources(config: Any, module: AgentModule, rank: int, batch_size: int) -> Sources:
    """Make the replay, or open the dataset, and read the demonstrations.

    Args:
        config: of the algorithm.
        module: of the learner.
        rank: of the learner among all.
        batch_size: of the learner's part.

    Raises:
        UserError: this machine has no memory for it, or files are missing, damaged or do not fit.
    """
    make, data = _Maker(config, module, rank), module.cfg.data
    share = data.validation_share
    kept: SequenceReplay | DatasetReplay | None = None
    if config.has_dataset:
        learned = make.of_dataset(data.dataset, EpisodePart(share, is_held_out=False) if share else None)
        if share:
            kept = make.of_dataset(data.dataset, EpisodePart(share, is_held_out=True))
        held_out = None if kept is None else HeldOut(share, kept, module, batch_size)
        return Sources(learned, NothingSaved(), None, held_out)
    model, rows = module.networks, replay_rows(config)
    require_memory(config, Shapes(model.obs_shape, model.action_dim, model.vector_dim))
    replay = make.ring(rows, data.priority_alpha)
    if share:
        kept = make.ring(held_out_rows(config, rows), priority_alpha=0.0)
    held_out = None if kept is None else HeldOut(share, kept, module, batch_size)
    return Sources(replay, SavedReplay(replay), make.demonstrations(), held_out)


class _Maker:
    """Makes one learner's sources, of the shapes of its networks."""

    def __init__(self, config: Any, module: AgentModule, rank: int) -> None:
        self._config, self._agent, self._model = config, module.cfg, module.networks
        self._rank, self._size = rank, max(config.num_learners, 1)
        self._extra_dim = module.agent.extra_dim(self._model.action_dim)
        self._allow_short = module.cfg.model.episodic
        frames = FRAMES if len(self._model.obs_shape) == 3 else 1
        self._shape = (self._model.obs_shape, self._model.action_dim, self._agent.planner.horizon, frames)

    def of_dataset(self, folder: str, part: EpisodePart | None = None) -> DatasetReplay:
        """Draws from a dataset's files."""
        info = self._config.info
        return DatasetReplay(
            Dataset(Path(folder)),
            info.tasks or (info.name,),
            *self._shape[:3],
            is_set=bool(info.tasks),
            allow_short=self._allow_short,
            part=part,
            shard=(self._rank, self._size),
        )

    def ring(self, rows: int, priority_alpha: float) -> SequenceReplay:
        """An empty replay."""
        data = self._agent.data
        data = replace(data, capacity=data.capacity // self._size, priority_alpha=priority_alpha)
        return make_replay(
            data,
            *self._shape,
            num_tasks=self._model.num_tasks,
            allow_short=self._allow_short,
            rows=rows,
            vector_dim=self._model.vector_dim,
            extra_dim=self._extra_dim,
        )

    def demonstrations(self) -> SequenceReplay | DatasetReplay | None:
        """Those that the config names; None: it names none."""
        data, info = self._agent.data, self._config.info
        if not data.demonstrations:
            return None
        if is_dataset(Path(data.demonstrations)):
            return self.of_dataset(data.demonstrations)
        return load_demonstrations(
            data,
            *self._shape,
            info.tasks if info else (),
            info.name if info else "",
            allow_short=self._allow_short,
            # Or the user has said whether the task can end, or that it does not matter.
            may_terminate=self._allow_short or "model.episodic" in self._config.agent_overrides,
            vector_dim=self._model.vector_dim,
        )
