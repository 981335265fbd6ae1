"""Several steps of imitation in a row, on a learner's demonstrations."""

from __future__ import annotations

from typing import Any

import torch

from tdmpc_ray.core.cloning import Cloner
from tdmpc_ray.core.nn.readback import Readback
from tdmpc_ray.core.parallel import Replicas
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.datasets.dataset import DatasetReplay
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.acting.module import AgentModule
from tdmpc_ray.rllib.learning.random_streams import RandomStreams


class CloningLoop:
    """Clones the demonstrations' policy before the run's first step.

    Args:
        module: whose networks learn.
        demonstrations: to imitate.
        streams: of this learner.
        batch_size: transitions per step, of this learner's part.
        replicas: the other learners; None: there are none.

    Attributes:
        total: steps to take in all.
    """

    def __init__(
        self,
        module: AgentModule,
        demonstrations: SequenceReplay | DatasetReplay,
        streams: RandomStreams,
        batch_size: int,
        replicas: Replicas | None,
    ) -> None:
        self._module, self._demonstrations, self._streams = module, demonstrations, streams
        cfg = module.cfg
        self.total = cfg.data.num_cloning_updates(demonstrations.transitions_added)
        self._sequences = max(1, batch_size // cfg.planner.horizon)
        self._cloner = Cloner(module.agent, module.networks, cfg.update.lr, replicas)

    def run(self, done: int, num: int) -> dict[str, tuple[float, int]]:
        """Take `num` steps after `done`; behind the last one of all, targets begin at what was learned.

        Returns:
            Sums of `bc/loss` and `bc/grad_norm`, and how many steps they are of.

        Raises:
            UserError: nothing in them was finite.
        """
        device, streams = self._streams.torch.device, self._streams
        rows = []
        for _ in range(num):
            batch = self._demonstrations.sample(self._sequences, streams.numpy, device.type == "cuda")
            rows.append(torch.stack(list(self._cloner.step(batch.to(device), streams.torch).values())))
        if done + num >= self.total:
            self._module.networks.renew_targets()
        values = Readback(torch.stack(rows)).value()  # (steps, loss and norm and skipped)
        taken = values[values[:, 2] == 0]
        if not len(taken):
            raise UserError(
                "imitating the demonstrations gives no finite loss: look at them with `tdmpc-ray demos`, and "
                "lower update.lr"
            )
        sums = taken.sum(0).tolist()
        return {"bc/loss": (sums[0], len(taken)), "bc/grad_norm": (sums[1], len(taken))}

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return self._cloner.optimizer.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._cloner.optimizer.load_state_dict(state)
