"""Recorded episodes that a run learns from beside its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tdmpc_ray.core.config import DataConfig
from tdmpc_ray.core.replay.prioritized import make_replay
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.datasets.episode import Episode
from tdmpc_ray.datasets.sources import read_episodes
from tdmpc_ray.errors import UserError
from tdmpc_ray.observations import IMAGE, VECTOR


def load_demonstrations(
    data: DataConfig,
    obs_shape: Sequence[int],
    action_dim: int,
    horizon: int,
    num_frames: int = 1,
    tasks: Sequence[str] = (),
    allow_short: bool = False,
    may_terminate: bool = True,
    vector_dim: int = 0,
) -> SequenceReplay:
    """Read all episodes of `data.demonstrations`, see `read_episodes`.

    Args:
        data: also says how sequences are drawn.
        obs_shape: of the environment.
        action_dim: A.
        horizon: of the sequences.
        num_frames: in a stack of images.
        tasks: names, where the model learns several; the ids are their places.
        allow_short: learn from episodes that are shorter than the horizon, too; see `SequenceReplay`.
        may_terminate: whether an episode may end in a terminal state.
        vector_dim: V, of the vector beside images; 0: there is none.

    Returns:
        A replay just large enough.

    Raises:
        UserError: no episode to learn from, or one that is damaged or does not fit.
    """
    episodes = []
    for episode in read_episodes(data.demonstrations):
        if tasks:
            episode = _filled_up(episode, obs_shape, action_dim)
        _require_fit(episode, obs_shape, action_dim, tasks, vector_dim)
        if not may_terminate:
            _require_no_end(episode)
        episodes.append(episode)
    rows = sum(len(episode.obs) + num_frames for episode in episodes)
    data = dataclasses.replace(data, capacity=max(rows, horizon) + horizon + 1)
    counts = (num_frames, len(tasks), allow_short, None, vector_dim)
    replay = make_replay(data, obs_shape, action_dim, horizon, *counts)
    for number, episode in enumerate(episodes):
        try:
            replay.add(
                str(number),
                0,
                {IMAGE: episode.obs, VECTOR: episode.vector} if episode.vector is not None else episode.obs,
                episode.action,
                episode.reward,
                terminated=episode.terminated,
                done=True,
                task=tasks.index(episode.task) if tasks else 0,
            )
        except UserError as error:
            raise UserError(f"{episode.source}: {error}") from None
    if replay.num_valid == 0:
        steps = "a step" if allow_short else f"planner.horizon={horizon} steps"
        raise UserError(f"no episode in {data.demonstrations} has {steps}")
    return replay


def _filled_up(episode: Episode, obs_shape: Sequence[int], action_dim: int) -> Episode:
    """With zeros, as the environments of a set are."""

    def filled(values: np.ndarray, size: int) -> np.ndarray:
        lacking = size - values.shape[1] if values.ndim == 2 else 0
        return np.pad(values, ((0, 0), (0, lacking))) if lacking > 0 else values

    obs, action = filled(episode.obs, obs_shape[0]), filled(episode.action, action_dim)
    return dataclasses.replace(episode, obs=obs, action=action)


def _require_no_end(episode: Episode) -> None:
    if episode.terminated:
        raise UserError(
            f"{episode.source} ends in a terminal state, and nothing said that the task can: set "
            "model.episodic to true (or to false, to plan without foreseeing it)"
        )


def _require_fit(
    episode: Episode, obs_shape: Sequence[int], action_dim: int, tasks: Sequence[str], vector_dim: int
) -> None:
    wanted: dict[str, tuple[np.ndarray | None, tuple[int, ...]]] = {
        "obs": (episode.obs, tuple(obs_shape)),
        "action": (episode.action, (action_dim,)),
    }
    if vector_dim:
        wanted[VECTOR] = (episode.vector, (vector_dim,))
    for name, (values, shape) in wanted.items():
        if values is None:
            raise UserError(f"{episode.source} has no '{name}'")
        if values.shape[1:] != shape:
            raise UserError(
                f"{episode.source} has {name} of shape {values.shape[1:]} per step, this run needs {shape}"
            )
    if tasks and episode.task not in tasks:
        raise UserError(f"{episode.source} is of task '{episode.task}', not of {', '.join(tasks)}")
