"""Parts of the networks that learn; the others stay as they are (`update.train`)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from tdmpc_ray.core.agents.tdmpc2.config import EMBEDDING, PARTS
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel

_MODULES = {
    "encoder": ("encoder.", "vector_encoder."),
    "dynamics": ("dynamics.",),
    "reward": ("reward_head.",),
    "value": ("q_ensemble.",),
    "policy": ("policy.",),
    "termination": ("termination_head.",),
}
assert {*_MODULES, EMBEDDING} == set(PARTS)


def freeze(model: WorldModel, train: str) -> None:
    """Let the named parts alone have gradients.

    Args:
        train: see `UpdateConfig.train`; with one task, `embedding` names the biases of all first layers: what
            a task's embedding adds is a part of them, see `one_task`.
    """
    if not train:
        return
    names = train.split("+")
    chosen = tuple(prefix for name in names for prefix in _MODULES.get(name, ()))
    embedding = {name for name, _ in _embedding(model)} if EMBEDDING in names else set()
    for name, parameter in model.named_parameters():
        if not name.startswith("target_q."):
            parameter.requires_grad_(name.startswith(chosen) or name in embedding)


def _embedding(model: WorldModel) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in model.named_parameters():
        is_first = name.split(".")[-3:-1] == ["layers", "0"] or name.split(".")[1:-1] == ["0"]
        if name == "task_embedding" or (not model.num_tasks and is_first and name.endswith(".bias")):
            yield name, parameter
