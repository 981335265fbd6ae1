"""What a learner draws sequences from: the run's own replay or a dataset, and demonstrations."""

from __future__ import annotations

import dataclasses
import math
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
from tdmpc_ray.rllib.learning.replay_memory import replay_rows, require_memory


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
    agent, model, info, size = module.cfg, module.networks, config.info, max(config.num_learners, 1)
    allow_short = agent.model.episodic

    share = agent.data.validation_share

    def draw_from(folder: str, part: EpisodePart | None = None) -> DatasetReplay:
        return DatasetReplay(
            Dataset(Path(folder)),
            info.tasks or (info.name,),
            model.obs_shape,
            model.action_dim,
            agent.planner.horizon,
            is_set=bool(info.tasks),
            allow_short=allow_short,
            shard=(rank, size),
            part=part,
        )

    def kept_from(replay: SequenceReplay | DatasetReplay) -> HeldOut:
        return HeldOut(share, replay, module, batch_size)

    if config.has_dataset:
        folder = agent.data.dataset
        if not share:
            return Sources(draw_from(folder), NothingSaved(), None, None)
        learned, kept = (draw_from(folder, EpisodePart(share, is_held_out)) for is_held_out in (False, True))
        return Sources(learned, NothingSaved(), None, kept_from(kept))
    num_frames = FRAMES if len(model.obs_shape) == 3 else 1
    shape = (model.obs_shape, model.action_dim, agent.planner.horizon, num_frames)
    data = dataclasses.replace(agent.data, capacity=agent.data.capacity // size)
    require_memory(config, Shapes(model.obs_shape, model.action_dim, model.vector_dim))
    replay = make_replay(data, *shape, model.num_tasks, allow_short, replay_rows(config), model.vector_dim)
    demonstrations: SequenceReplay | DatasetReplay | None = None
    if is_dataset(Path(agent.data.demonstrations)):
        demonstrations = draw_from(agent.data.demonstrations)
    elif agent.data.demonstrations:
        demonstrations = load_demonstrations(
            agent.data,
            *shape,
            info.tasks if info else (),
            info.name if info else "",
            allow_short=allow_short,
            # Or the user has said whether the task can end, or that it does not matter.
            may_terminate=allow_short or "model.episodic" in config.agent_overrides,
            vector_dim=model.vector_dim,
        )
    held_out = None
    if share:
        rows = math.ceil(share * replay_rows(config)) + module.cfg.planner.horizon + 1
        uniform = dataclasses.replace(data, priority_alpha=0.0)
        held_out = kept_from(
            make_replay(uniform, *shape, model.num_tasks, allow_short, rows, model.vector_dim)
        )
    return Sources(replay, SavedReplay(replay), demonstrations, held_out)
