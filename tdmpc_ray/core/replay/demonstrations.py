"""Episodes on disk that a run learns from beside its own: one `.npz` file each.

`obs` (T + 1, *obs_shape) as the environment gave it, `action` (T, A) in [-1, 1], `reward` (T,) and, where the
task itself ended, `terminated` (true). Of several tasks, `task` is the name. Of images with a vector beside
them, `obs` are the images, and `vector` (T + 1, V).
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tdmpc_ray.addresses import refuse_address
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.errors import UserError
from tdmpc_ray.observations import IMAGE, VECTOR, ObsArray, map_parts, parts_of, stack

_NEEDED = ("obs", "action", "reward")


class EpisodeRecord:
    """An episode in the making; begins with its first observation."""

    def __init__(self, obs: ObsArray) -> None:
        self._obs = [map_parts(np.array, obs)]
        self._action: list[np.ndarray] = []
        self._reward: list[float] = []

    def add(self, obs: ObsArray, action: np.ndarray, reward: float) -> None:
        """A step: the action, and what the environment answered."""
        self._obs.append(map_parts(np.array, obs))
        self._action.append(np.array(action, np.float32))
        self._reward.append(reward)

    def save(self, path: Path, *, terminated: bool, task: str) -> None:
        """Write the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        obs, vector = parts_of(stack(self._obs))
        np.savez_compressed(
            path,
            obs=obs,
            **({} if vector is None else {VECTOR: vector}),
            action=np.stack(self._action),
            reward=np.array(self._reward, np.float32),
            terminated=terminated,
            task=task,
        )


def episode_files(folder: Path) -> list[Path]:
    """The episodes of a folder.

    Raises:
        UserError: it has none.
    """
    refuse_address(folder)
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise UserError(f"no episodes (*.npz) in data.demonstrations={folder}: give the folder that has them")
    return files


def load_demonstrations(
    folder: Path,
    obs_shape: Sequence[int],
    action_dim: int,
    horizon: int,
    num_frames: int = 1,
    tasks: Sequence[str] = (),
    allow_short: bool = False,
    may_terminate: bool = True,
    vector_dim: int = 0,
) -> SequenceReplay:
    """Read all episodes of a folder.

    Args:
        folder: with `.npz` files; their names give the order.
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
        UserError: no folder, no episode to learn from, or a file that is damaged or does not fit.
    """
    files = episode_files(folder)
    episodes = [_read(file, obs_shape, action_dim, tasks, vector_dim) for file in files]
    for file, episode in zip(files, episodes, strict=True):
        if episode["terminated"] and not may_terminate:
            raise UserError(
                f"the demonstration {file} ends in a terminal state, and nothing said that the task can: set "
                "model.episodic to true (or to false, to plan without foreseeing it)"
            )
    rows = sum(len(episode["obs"]) + num_frames for episode in episodes)
    shape = (max(rows, horizon) + horizon + 1, obs_shape, action_dim, horizon, num_frames)
    replay = SequenceReplay(*shape, len(tasks), allow_short, vector_dim=vector_dim)
    for file, episode in zip(files, episodes, strict=True):
        try:
            replay.add(
                file.name,
                0,
                {IMAGE: episode["obs"], VECTOR: episode[VECTOR]} if vector_dim else episode["obs"],
                episode["action"],
                episode["reward"],
                terminated=bool(episode["terminated"]),
                done=True,
                task=tasks.index(str(episode["task"])) if tasks else 0,
            )
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
    if replay.num_valid == 0:
        steps = "a step" if allow_short else f"planner.horizon={horizon} steps"
        raise UserError(f"no episode in {folder} has {steps}")
    return replay


def _read(
    file: Path, obs_shape: Sequence[int], action_dim: int, tasks: Sequence[str], vector_dim: int
) -> dict[str, np.ndarray]:
    try:
        with np.load(file) as archive:
            episode = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read the demonstration {file}: {error}") from None
    needed = (*_NEEDED, VECTOR) if vector_dim else _NEEDED
    if missing := [name for name in needed if name not in episode]:
        raise UserError(f"the demonstration {file} has no '{missing[0]}'")
    episode.setdefault("terminated", np.array(False))
    if tasks:  # filled up as the environments of a set are
        for name, size in (("obs", obs_shape[0]), ("action", action_dim)):
            values = episode[name]
            if values.ndim == 2 and values.shape[1] < size:
                episode[name] = np.pad(values, ((0, 0), (0, size - values.shape[1])))
    steps = len(episode["action"])
    wanted: dict[str, tuple[int, ...]] = {"obs": (steps + 1, *obs_shape), "action": (steps, action_dim)}
    wanted |= {"reward": (steps,), "terminated": ()}
    if vector_dim:
        wanted[VECTOR] = (steps + 1, vector_dim)
    for name, shape in wanted.items():
        if episode[name].shape != shape:
            raise UserError(
                f"the demonstration {file} has {name} of shape {episode[name].shape}, this run needs {shape}"
            )
    if np.abs(episode["action"]).max(initial=0.0) > 1.0 + 1e-6:
        raise UserError(f"the demonstration {file} has actions outside of [-1, 1]: scale them")
    if tasks and str(episode.get("task", "")) not in tasks:
        raise UserError(
            f"the demonstration {file} is of task '{episode.get('task', '')}', not of {', '.join(tasks)}"
        )
    return episode
