"""What a plan asks of the networks, and the re-planning of steps that were taken long ago."""

from __future__ import annotations

import torch
from torch import Tensor

from tdmpc_ray.core.agents.bmpc.networks import BMPCNetworks
from tdmpc_ray.core.agents.tdmpc2.functions import TorchFunctions
from tdmpc_ray.core.agents.tdmpc2.world_model import TaskContext


class BMPCFunctions(TorchFunctions):
    """`planners.ModelFunctions`: candidates end in the value of their last latent.

    Args:
        networks: the agent's.
        task: of each environment (N, ...), with several.
        log_std_range: of the policy's proposals, where it is not the policy's own.
    """

    _model: BMPCNetworks

    def __init__(
        self,
        networks: BMPCNetworks,
        task: TaskContext | None = None,
        log_std_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(networks, task)
        cfg = networks.cfg
        self._log_std_range = log_std_range or (cfg.log_std_min, cfg.log_std_max)

    def terminal_value(self, z: Tensor, eps: Tensor, heads: Tensor) -> Tensor:
        """See `ModelFunctions`; the mean of the two heads, without an action."""
        return self._model.values(z, heads, self._task).mean(0).squeeze(-1)

    def policy_rollout(self, z: Tensor, eps: Tensor) -> Tensor:
        """See `ModelFunctions`."""
        z, actions = z.unsqueeze(1), []
        for t, eps_t in enumerate(eps):
            actions.append(self._model.propose(z, eps_t, self._log_std_range, self._task))
            if t + 1 < len(eps):
                z = self._model.next(z, actions[-1], self._task)
        return torch.stack(actions)
