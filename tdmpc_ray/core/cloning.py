"""Imitation of demonstrated actions by encoder and policy: MoDem's first phase (Hansen et al., 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from tdmpc_ray.core.agents.agent import Agent, Networks
from tdmpc_ray.core.batch import Batch, ImageAndVector, Observation, observations
from tdmpc_ray.core.nn.descent import Descent
from tdmpc_ray.core.nn.pixels import draw_shift
from tdmpc_ray.core.parallel import Replicas

CLONE_STD = 0.05  # of the noise on the clone's actions, while it acts in the place of random steps
_CLIP_NORM = 10.0


class Cloner:
    """Takes gradient steps on the squared error between demonstrated actions and the policy's mean.

    Args:
        agent: whose networks they are.
        networks: to change; all that deciding without planning needs.
        lr: of Adam.
        replicas: with whom to take each step, where this is one of several.

    Attributes:
        optimizer: its state belongs to a checkpoint, as long as cloning goes on.
    """

    def __init__(self, agent: Agent, networks: Networks, lr: float, replicas: Replicas | None) -> None:
        self._agent, self._networks = agent, networks
        without = (*networks.learning_only, *networks.planning_only)
        params = [p for name, p in networks.named_parameters() if not name.startswith(without)]
        self.optimizer = torch.optim.Adam(params, lr=lr, fused=True)
        self._descent = Descent(self.optimizer, params, _CLIP_NORM, replicas)

    def step(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Take one step on all transitions of a batch; where something is not finite, none.

        Args:
            batch: of demonstrations, on the networks' device.
            generator: of the shifts of images.

        Returns:
            Loss and gradient norm, and `skipped`, as 0-d tensors on the networks' device.
        """
        networks, action = self._networks, batch.action.flatten(0, 1)
        obs = _flat(observations(batch, slice(0, -1)))
        ids = None if batch.task is None else batch.task.repeat(batch.horizon)
        task = networks.task(ids)
        shift = draw_shift((len(action),), generator) if len(networks.obs_shape) == 3 else None
        mean = self._agent.policy_mean(networks, self._agent.encode(networks, obs, task, shift), task)
        weight = torch.ones_like(action) if ids is None else networks.action_masks[ids]
        if batch.mask is not None:
            weight = weight * batch.mask.flatten(0, 1)
        loss = ((mean - action).square() * weight).sum() / weight.sum()
        norm, skipped = self._descent.step(loss, torch.zeros((), device=networks.device))
        return {"loss": loss.detach(), "grad_norm": norm, "skipped": skipped}


def _flat(obs: Observation) -> Observation:
    if isinstance(obs, ImageAndVector):
        return ImageAndVector(obs.image.flatten(0, 1), obs.vector.flatten(0, 1))
    return obs.flatten(0, 1)
