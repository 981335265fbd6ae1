"""Networks of one task, and of other tasks, made of those of several.

What a task's embedding adds to the product of a first layer is the same for every input, so that it is a part
of the layer's bias: the networks made here give out what those of several tasks do, and are a single task's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_READ_ACTIONS = ("dynamics.0.", "reward_head.0.", "q_ensemble.layers.0.", "target_q.layers.0.")
_FIRST = ("encoder.0.", "policy.0.", "termination_head.0.", *_READ_ACTIONS)


def of_one_task(
    state: Mapping[str, Tensor], shares: Tensor, obs_dim: int, action_dim: int
) -> dict[str, Tensor]:
    """Parameters of a single task's networks.

    Numbers of an observation or action that the task has not are left out; weights of those that the networks
    have never seen are zero.

    Args:
        state: of a `WorldModel` of N tasks, which observe vectors.
        shares: of each task's embedding in this one's, (N,).
        obs_dim: numbers that the task observes.
        action_dim: numbers in its actions.
    """
    embedding = shares @ _bounded(state["task_embedding"])
    seen = state["encoder.0.weight"].shape[-1] - len(embedding)
    latent = state["policy.0.weight"].shape[-1] - len(embedding)
    made = {key: x for key, x in state.items() if key != "task_embedding"}
    for first in (part for part in _FIRST if f"{part}weight" in state):
        known = seen if first == "encoder.0." else latent
        before, of_task, after = state[f"{first}weight"].tensor_split([known, known + len(embedding)], -1)
        made[f"{first}bias"] = state[f"{first}bias"] + of_task @ embedding
        if first == "encoder.0.":
            before = _sized(before, obs_dim, -1)
        elif first in _READ_ACTIONS:
            after = _sized(after, action_dim, -1)
        made[f"{first}weight"] = torch.cat([before, after], -1)
    for key in ("policy.2.weight", "policy.2.bias"):  # mean and log standard deviation of each number
        made[key] = torch.cat([_sized(part, action_dim, 0) for part in state[key].chunk(2)])
    return made


def of_tasks(state: Mapping[str, Tensor], shares: Tensor) -> dict[str, Tensor]:
    """Parameters of the networks of M tasks; `shares`: of each learned embedding in each new one, (M, N)."""
    return {**state, "task_embedding": shares @ _bounded(state["task_embedding"])}


def _bounded(embeddings: Tensor) -> Tensor:
    """As the networks read them."""
    return embeddings / embeddings.norm(dim=-1, keepdim=True).clamp(min=1)


def _sized(x: Tensor, size: int, dim: int) -> Tensor:
    """The first `size` along an axis, and zeros where there are fewer."""
    missing = max(size - x.shape[dim], 0)
    shape = [missing if axis == dim % x.ndim else n for axis, n in enumerate(x.shape)]
    return torch.cat([x.narrow(dim, 0, min(size, x.shape[dim])), x.new_zeros(shape)], dim)
