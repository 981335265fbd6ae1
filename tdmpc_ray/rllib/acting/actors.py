"""What RLlib keeps to itself of the actors in its groups, read here and nowhere else."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import ray
from ray.rllib.env.env_runner_group import EnvRunnerGroup


@contextlib.contextmanager
def groups_begun() -> Iterator[list[EnvRunnerGroup]]:
    """Within, the groups of env runners that RLlib begins to build: one that fails is nowhere else."""
    module, groups = importlib.import_module("ray.rllib.algorithms.algorithm"), []

    def begin(*args: Any, **kwargs: Any) -> EnvRunnerGroup:
        groups.append(group := EnvRunnerGroup.__new__(EnvRunnerGroup))
        group.__init__(*args, **kwargs)
        return group

    module.EnvRunnerGroup = begin  # type: ignore[attr-defined]
    try:
        yield groups
    finally:
        module.EnvRunnerGroup = EnvRunnerGroup  # type: ignore[attr-defined]


def actors(group: Any) -> dict[int, Any]:
    """Ray's handles by the actors' indices, of an `EnvRunnerGroup` or a `LearnerGroup`."""
    return group._worker_manager.actors()


def open_requests(group: Any, tag: str | None = None) -> dict[ray.ObjectRef, int]:
    """Asynchronous requests without a result, each with its actor's index; None: whatever their tag."""
    in_flight = group._worker_manager._in_flight_req_to_actor_id
    return {ref: actor for ref, (its_tag, actor) in in_flight.items() if tag in (None, its_tag)}


def ask_all(group: Any, method: str) -> list[Any]:
    """What all actors answer, dead ones too: values, or the errors that came in their place."""
    return [answer.get() for answer in group._worker_manager.foreach_actor(method, healthy_only=False)]


def ask_the_dead(group: Any, method: str, tag: str) -> None:
    """Call actors that count as dead and have not been asked yet, without waiting for an answer."""
    manager = group._worker_manager
    asked = set(open_requests(group, tag).values())
    dead = set(manager.actor_ids()) - set(manager.healthy_actor_ids()) - asked
    if dead:
        manager.foreach_actor_async(method, tag=tag, healthy_only=False, remote_actor_ids=sorted(dead))


def take_answers(group: Any, tag: str, *, mark_healthy: bool = False) -> list[Any]:
    """RLlib's results of the requests of a tag that have come, with `actor_id`, `ok` and `get`."""
    return list(group._worker_manager.fetch_ready_async_reqs(tags=tag, mark_healthy=mark_healthy))
