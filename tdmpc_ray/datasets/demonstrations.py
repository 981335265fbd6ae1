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
    task: str = "",
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
        task: name of the one task; where there are episodes of it, the others are left out.
        allow_short: learn from episodes that are shorter than the horizon, too; see `SequenceReplay`.
        may_terminate: whether an episode may end in a terminal state.
        vector_dim: V, of the vector beside images; 0: there is none.

    Returns:
        A replay just large enough.

    Raises:
        UserError: nothing to learn from, or an episode that is damaged or does not fit.
    """
    episodes = _of_task(list(read_episodes(data.demonstrations)), task)
    if tasks:
        episodes = [_filled_up(episode, obs_shape, action_dim) for episode in episodes]
    for episode in episodes:
        _require_fit(episode, obs_shape, action_dim, tasks, vector_dim)
        _require_no_end(episode, may_terminate)
    rows = max(sum(len(episode.obs) + num_frames for episode in episodes), horizon)
    data = dataclasses.replace(data, capacity=rows + horizon + 1)
    shape = (obs_shape, action_dim, horizon, num_frames, len(tasks), allow_short, None, vector_dim)
    replay = make_replay(data, *shape)
    for number, episode in enumerate(episodes):
        try:
            replay.add(
                str(number),
                0,
                episode.obs if episode.vector is None else {IMAGE: episode.obs, VECTOR: episode.vector},
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


def _of_task(episodes: list[Episode], task: str) -> list[Episode]:
    """Those of a task, whatever its action repeat and reward; all, where none says that it is of this one."""
    name = task.partition("@")[0]
    return [episode for episode in episodes if name and episode.task.partition("@")[0] == name] or episodes


def _filled_up(episode: Episode, obs_shape: Sequence[int], action_dim: int) -> Episode:
    """With zeros, as the environments of a set are."""

    def filled(values: np.ndarray, size: int) -> np.ndarray:
        lacking = size - values.shape[1] if values.ndim == 2 else 0
        return np.pad(values, ((0, 0), (0, lacking))) if lacking > 0 else values

    obs, action = filled(episode.obs, obs_shape[0]), filled(episode.action, action_dim)
    return dataclasses.replace(episode, obs=obs, action=action)


def _require_no_end(episode: Episode, may_terminate: bool) -> None:
    if episode.terminated and not may_terminate:
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
