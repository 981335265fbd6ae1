"""What learners have done in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tdmpc_ray.rllib.learning.updates import Losses


class Work(NamedTuple):
    """What a call of `AgentLearner.work` has done."""

    added: int  # transitions
    lost: int  # batches, with the runners that held them
    lost_steps: int
    num_updates: int
    losses: Losses  # also of earlier calls
    seconds: float
    weights: Any  # a Ray reference to the state that env runners take, or None
    weights_s: float  # of `seconds`, what leaving the weights there took
    is_ready: bool  # to be asked for updates
    left_out: int = 0  # transitions so far that are in no sequence
    per_task: tuple[int, ...] = ()  # `added`, by task
    notes: tuple[str, ...] = ()  # lines for the user
    validation: Mapping[str, float] = {}  # losses on episodes kept from training; empty where none were read
    batch_wait_s: float = 0.0  # of `seconds`, what updates waited for batches to be drawn


def merged(works: Sequence[Work]) -> Work:
    """Of all learners that have answered one call, the first one first: they made the same updates."""
    first = works[0]
    names = set.intersection(*(set(work.validation) for work in works))
    means = {name: sum(w.losses.means[name] for w in works) / len(works) for name in first.losses.means}
    return first._replace(
        added=sum(work.added for work in works),
        lost=sum(work.lost for work in works),
        lost_steps=sum(work.lost_steps for work in works),
        losses=first.losses._replace(means=means),
        seconds=max(work.seconds for work in works),
        batch_wait_s=max(work.batch_wait_s for work in works),
        is_ready=all(work.is_ready for work in works),
        left_out=sum(work.left_out for work in works),
        validation={
            name: sum(work.validation[name] for work in works) / len(works) for name in sorted(names)
        },
        per_task=tuple(map(sum, zip(*(work.per_task for work in works), strict=True))),
    )
