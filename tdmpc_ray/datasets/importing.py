"""Adds files of others to a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tdmpc_ray.datasets.episode import Episode
from tdmpc_ray.datasets.manifest import Source
from tdmpc_ray.datasets.published import padded_sizes, read_published
from tdmpc_ray.datasets.sources import read_episodes
from tdmpc_ray.datasets.writer import DatasetWriter
from tdmpc_ray.envs import task_info, task_sizes
from tdmpc_ray.envs.tables import TASK_SETS
from tdmpc_ray.errors import UserError, unknown

_PUBLISHED = (".pt", ".pth")
_BY_WIDTH = {24: "mt30", 39: "mt80"}  # of observations, filled up to the largest task's


@dataclass(frozen=True)
class Taken:
    """What of the episodes is taken.

    Attributes:
        tasks: by name; none: all.
        share: of the episodes of each file and task, drawn with the same seed each time.
    """

    tasks: Sequence[str] = ()
    share: float = 1.0
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"--share {self.share:g}: give a share of the episodes, above 0 and at most 1")

    def takes(self, task: str) -> bool:
        """Whether an episode of a task is taken."""
        is_wanted = not self.tasks or task in self.tasks
        return is_wanted and (self.share == 1 or self.random.random() < self.share)


@dataclass(frozen=True)
class TaskNames:
    """What the ids of a published file stand for.

    Attributes:
        names: in the order of the ids.
        obs_dims: sizes of the tasks' own observations.
        action_dims: likewise.
    """

    names: Sequence[str]
    obs_dims: Sequence[int]
    action_dims: Sequence[int]

    def __post_init__(self) -> None:
        numbers = {len(self.names), len(self.obs_dims), len(self.action_dims)}
        if len(numbers) > 1:
            raise UserError(
                f"{len(self.names)} task names, {len(self.obs_dims)} observation sizes and "
                f"{len(self.action_dims)} action sizes: give as many of each"
            )

    @classmethod
    def of_set(cls, name: str) -> TaskNames:
        """Those of mt30 or mt80."""
        tasks = [task_info(task).name for task in TASK_SETS[name]]
        sizes = [task_sizes(task) for task in tasks]
        return cls(tasks, [obs for obs, _ in sizes], [action for _, action in sizes])

    @classmethod
    def of_file(cls, file: Path) -> TaskNames:
        """Those of the published set that a file is of, by the width of its observations.

        Raises:
            UserError: it is of none.
        """
        width, _ = padded_sizes(file)
        if width not in _BY_WIDTH:
            raise UserError(
                f"{file} has observations of {width} numbers, mt30 has 24 and mt80 39: say what is in it by "
                "--task-names, --obs-dims and --action-dims"
            )
        return cls.of_set(_BY_WIDTH[width])


def import_file(
    writer: DatasetWriter,
    place: str,
    taken: Taken,
    given: TaskNames | None,
    on_episode: Callable[[], None] = lambda: None,
) -> int:
    """Add the episodes of a place; returns how many.

    Args:
        writer: of the dataset.
        place: a file of the published datasets, or what `read_episodes` takes.
        taken: which episodes.
        given: what the ids of published files stand for; None: those of mt30 or mt80.
        on_episode: called after each that was added.

    Raises:
        UserError: the place is damaged or foreign, has an unnamed task, or has been added before.
    """
    is_published = Path(place).suffix in _PUBLISHED
    kind = "published" if is_published else "episodes"
    source = writer.begin(Source(kind=kind, place=place if ":" in place else str(Path(place).absolute())))
    count = 0
    for episode in _published(Path(place), given) if is_published else read_episodes(place):
        name = episode.task or _only_name(episode, given)
        if taken.takes(name):
            writer.add(episode, source, name)
            count += 1
            on_episode()
    return count


def _published(file: Path, given: TaskNames | None) -> Iterator[Episode]:
    tasks = given or TaskNames.of_file(file)
    return read_published(file, tasks.names, tasks.obs_dims, tasks.action_dims)


def _only_name(episode: Episode, given: TaskNames | None) -> str:
    if given is None or len(given.names) != 1:
        raise UserError(f"{episode.source} does not say of which task it is: give --task-names NAME")
    return given.names[0]


def require_tasks(names: Sequence[str], given: TaskNames | None) -> None:
    """Refuse tasks to take that nothing could have.

    Raises:
        UserError: names the nearest.
    """
    known = list(given.names) if given is not None else None
    for name in names:
        if known is not None and name not in known:
            raise unknown("task", name, known)
