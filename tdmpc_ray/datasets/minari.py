"""Episodes of Minari, the format of the Gymnasium ecosystem."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc_ray.datasets.episode import Episode
from tdmpc_ray.envs.adapter import check_spaces
from tdmpc_ray.envs.contract import LayoutError
from tdmpc_ray.envs.images import is_stacked, stack_frames
from tdmpc_ray.envs.spaces import ActionScale
from tdmpc_ray.errors import UserError, reason
from tdmpc_ray.observations import IMAGE, VECTOR, parts_of, stack

PREFIX = "minari:"


def is_minari(folder: Path) -> bool:
    """Whether a folder is a dataset of Minari."""
    return (folder / "data" / "metadata.json").is_file()


def read_minari(where: str) -> Iterator[Episode]:
    """Read all episodes of a dataset on this machine, observations and actions as `adapt` gives them.

    Args:
        where: `minari:ID`, as `minari list local` shows it; or the dataset's folder.

    Raises:
        UserError: Minari is missing, there is no such dataset, or nothing here handles its spaces.
    """
    try:
        import minari
    except ImportError:
        raise UserError("datasets of Minari need it: pip install 'tdmpc-ray[minari]'") from None
    name = where.removeprefix(PREFIX)
    try:
        if where.startswith(PREFIX):
            dataset = minari.load_dataset(name)
        else:
            dataset = minari.MinariDataset(Path(where) / "data")
        actions, layout = check_spaces(where, dataset.action_space, dataset.observation_space)
        scale = ActionScale(actions.low, actions.high)
        task = dataset.spec.env_spec.id if dataset.spec.env_spec is not None else ""
        for episode in dataset.iterate_episodes():
            source = f"the demonstration {where}, episode {episode.id}"
            yield _episode(source, episode, layout, scale, f"gym:{task}" if task else "")
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(
            f"there is no dataset {name} of Minari on this machine: get it with `minari download {name}`"
        ) from None
    except Exception as error:  # of a foreign library and its files
        raise UserError(f"cannot read {where}: {reason(error)}") from None


def _episode(source: str, episode: Any, layout: Any, scale: ActionScale, task: str) -> Episode:
    steps = len(episode.actions)
    try:
        seen = [layout(_at(episode.observations, step)) for step in range(steps + 1)]
    except (LayoutError, IndexError) as error:
        raise UserError(f"{source}: the observation{error}") from None
    obs: Any = stack(seen)
    if not is_stacked(layout.space):
        seen_images, vector = parts_of(obs)
        stacks = stack_frames(seen_images)
        obs = stacks if vector is None else {IMAGE: stacks, VECTOR: vector}
    infos = episode.infos or {}
    success = infos.get("success")
    images_or_vector, beside = parts_of(obs)
    return Episode(
        source,
        images_or_vector,
        scale.inverse(episode.actions).astype(np.float32),
        np.asarray(episode.rewards, np.float32),
        bool(np.asarray(episode.terminations)[-1]),
        beside,
        task,
        None if success is None else bool(np.asarray(success).reshape(-1)[-1]),
    )


def _at(observations: Any, step: int) -> Any:
    """One observation out of arrays over time, nested as the space is."""
    if isinstance(observations, dict):
        return {key: _at(part, step) for key, part in observations.items()}
    if isinstance(observations, tuple):
        return tuple(_at(part, step) for part in observations)
    return observations[step]
