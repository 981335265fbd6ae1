"""One gradient step of BMPC: TD-MPC2's, with imagined targets and a policy that follows the planner."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tdmpc_ray.core.agents.bmpc.losses import PlannerGaussian, imagined_target, imitation_loss
from tdmpc_ray.core.agents.bmpc.networks import BMPCNetworks
from tdmpc_ray.core.agents.tdmpc2.config import UpdateConfig
from tdmpc_ray.core.agents.tdmpc2.losses import PolicyLoss, Targets, mean_of_real
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise
from tdmpc_ray.core.agents.tdmpc2.update import Updater as TDMPC2Updater
from tdmpc_ray.core.agents.tdmpc2.world_model import TaskContext
from tdmpc_ray.core.batch import Batch, observations
from tdmpc_ray.core.nn.compiled import Compiled
from tdmpc_ray.core.parallel import Replicas
from tdmpc_ray.errors import UserError


@torch.no_grad()
def targets_of(
    networks: BMPCNetworks, batch: Batch, noise: UpdateNoise, discount: Tensor, task: TaskContext | None
) -> Targets:
    """Latents of the steps 1 to H, and targets of values at the steps before them."""
    z = networks.encode(observations(batch, slice(None)), task, noise.shift)
    target = imagined_target(networks, z[:-1], discount, noise.target_eps, noise.target_heads, task)
    clipped = (mean_of_real(networks.is_clipped(x).float(), batch.mask) for x in (target, batch.reward))
    return Targets(z[1:], target, mean_of_real(target, batch.mask), *clipped)


def planned_in(batch: Batch) -> PlannerGaussian:
    """The planner's Gaussians, which the replay keeps with every step."""
    if batch.extra is None:
        raise UserError(
            "algorithm bmpc learns from steps that its own runs have taken, which hold their plans"
        )
    return PlannerGaussian(*batch.extra.chunk(2, -1))


class Updater(TDMPC2Updater):
    """See TD-MPC2's; the running scale is that of the policy's divergence from the planner.

    Attributes:
        policy_begins: updates before the policy's first one: those that catch up with random steps leave it.
    """

    model: BMPCNetworks
    policy_begins = 0

    def __init__(
        self,
        networks: BMPCNetworks,
        cfg: UpdateConfig,
        discount: float | Sequence[float],
        optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer] | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        super().__init__(networks, cfg, discount, optimizers, replicas)
        self._targets = Compiled(targets_of) if self._compiles else targets_of
        # What the policy does is decided on the host, and kept with the run.
        self.updates = torch.zeros((), dtype=torch.int64)
        self._imitation_loss = Compiled(imitation_loss) if self._compiles else imitation_loss

    def step(self, batch: Batch, noise: UpdateNoise) -> dict[str, Tensor]:
        metrics = super().step(batch, noise)
        self.updates += 1
        return metrics

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "updates": self.updates}

    def _policy_learns(self) -> bool:
        return int(self.updates) >= self.policy_begins

    def _policy(self, zs: Tensor, batch: Batch, noise: UpdateNoise, task: TaskContext | None) -> PolicyLoss:
        acted, eps = zs[:-1], noise.pi_eps[:-1]
        return self._imitation_loss(
            self.model, acted, planned_in(batch), self.scale, self.cfg, eps, task, batch.mask
        )
