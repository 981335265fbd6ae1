"""Whether a study's trials find room: one check before the start, by `--dry-run` and while they wait.

Ray reserves a trial in bundles, each of which has to fit on one node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdmpc_ray.studies.file.spec import Study  # with PyTorch, whose import takes seconds

Amounts = Mapping[str, float]  # of resources, as Ray names them
Bundles = Sequence[Amounts]  # of one trial


@dataclass(frozen=True)
class Capacity:
    """What there is to run trials on.

    Attributes:
        where: in words.
        nodes: resources of each.
    """

    where: str
    nodes: tuple[Amounts, ...]

    def total(self, name: str) -> float:
        """Of one resource, over all nodes."""
        return sum(node.get(name, 0.0) for node in self.nodes)


def summed(bundles: Bundles) -> dict[str, float]:
    """What a trial takes in all."""
    names = dict.fromkeys(name for bundle in bundles for name in bundle)
    return {name: sum(bundle.get(name, 0.0) for bundle in bundles) for name in names}


def most_of_each(requests: Sequence[Bundles]) -> dict[str, float]:
    """Of each resource the most that any trial takes."""
    need: dict[str, float] = {}
    for bundles in requests:
        for name, amount in summed(bundles).items():
            need[name] = max(amount, need.get(name, 0.0))
    return need


def misfit(requests: Sequence[Bundles], room: Capacity) -> str:
    """Why some trial can never start on these nodes; empty where all can."""
    from tdmpc_ray.core.replay.size import gigabytes

    for bundle in (bundle for bundles in requests for bundle in bundles):
        places = [node for node in room.nodes if _has(node, {**bundle, "memory": 0})]
        if not places:
            return f"{said(bundle)} have to be on one node, and none of {room.where} has them"
        if not any(_has(node, {"memory": bundle.get("memory", 0)}) for node in places):
            return (
                f"the replay takes {gigabytes(bundle['memory'])} of memory on one node, and none of "
                f"{room.where} has them: lower data.capacity, or train fewer steps"
            )
    need = most_of_each(requests)
    if any(room.total(name) < amount for name, amount in need.items() if name != "memory"):
        return f"{room.where} has {said({name: room.total(name) for name in ('CPU', 'GPU')})}"
    if (memory := need.get("memory", 0)) > room.total("memory"):
        return f"the replay takes {gigabytes(memory)} and {room.where} has {gigabytes(room.total('memory'))}"
    return ""


def places(requests: Sequence[Bundles], room: Capacity) -> int:
    """Trials that there is room for at once."""
    return int(min(room.total(name) // amount for name, amount in most_of_each(requests).items() if amount))


def turns(study: Study, requests: Sequence[Bundles], room: Capacity) -> str:
    """What a scheduler that compares trials under way has to do with fewer places than trials; or nothing."""
    trials, found = study.trials(), places(requests, room)
    if not study.scheduler.compares_live_trials or not 0 < found < trials:
        return ""
    enough = {name: trials * amount for name, amount in most_of_each(requests).items()}
    return (
        f"scheduler: {study.scheduler.method} compares {trials} trials and there is room for {found} at "
        f"once: the others wait, and each is judged by those behind it or by none; {said(enough)} would do"
    )


def said(amounts: Amounts) -> str:
    """`3 CPUs and 1 GPU`; memory is said in other words."""
    counted = {name: amount for name, amount in amounts.items() if amount and name != "memory"}
    words = [f"{amount:g} {name}{'s' * (amount != 1)}" for name, amount in counted.items()]
    return " and ".join(words) or "nothing"


def _has(node: Amounts, amounts: Amounts) -> bool:
    return all(node.get(name, 0) >= amount for name, amount in amounts.items())
