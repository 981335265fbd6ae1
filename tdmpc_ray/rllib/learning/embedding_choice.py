"""The task of a set that a new one is most like, by the model's error on the new one's first episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.parallel import Replicas
from tdmpc_ray.rllib.acting.module import AgentModule
from tdmpc_ray.rllib.learning.start_networks import StartNetworks, state_for

_BATCHES = 8


class EmbeddingChoice:
    """To be made once, before a run's first update.

    Args:
        start: networks of several tasks.
        module: of the run, of one task.
        config: of the run.
        replicas: with whom to choose, where this learner is one of several.
    """

    def __init__(
        self, start: StartNetworks, module: AgentModule, config: Any, replicas: Replicas | None
    ) -> None:
        self._start, self._module, self._config, self._replicas = start, module, config, replicas
        self._num_updates = module.num_updates

    def make(self, draw: Callable[[], Batch]) -> str:
        """Take the networks with the best embedding over, unless a restored run has learned already.

        Args:
            draw: a batch on the networks' device.

        Returns:
            What to tell the user; empty where nothing was chosen.
        """
        if self._module.num_updates > self._num_updates:
            return ""
        batches, tasks = [draw() for _ in range(_BATCHES)], self._start.tasks
        errors = torch.stack([self._error(task, batches) for task in tasks]).unsqueeze(0)
        if self._replicas is not None:
            errors = self._replicas.gather(errors)
        best = tasks[int(errors.mean(0).nan_to_num(torch.inf).argmin())]
        self._begin_as(best)
        return (
            f"the task begins with the embedding of {best}: of {len(tasks)}, it foresees the first steps best"
        )

    def _error(self, task: str, batches: list[Batch]) -> torch.Tensor:
        self._begin_as(task)
        module = self._module
        update = module.cfg.update
        return torch.stack(
            [module.agent.model_error(module.networks, batch, update) for batch in batches]
        ).mean()

    def _begin_as(self, task: str) -> None:
        self._module.set_state(state_for(self._start, self._module.networks, self._config, task))
