"""The random streams of a learner, which go on after a restore as if nothing had happened."""

from __future__ import annotations

import json
import os

import numpy as np
import torch

from tdmpc_ray.core.parallel import Replicas
from tdmpc_ray.rllib.acting.seeding import Stream, derive


class RandomStreams:
    """What a learner draws from; all but the stream of the heads differ among learners.

    Args:
        seed: None draws one.
        device: of the updates.
        replicas: the other learners; None: there are none.

    Attributes:
        torch: noise of the updates.
        numpy: draws from the replay.
    """

    def __init__(self, seed: int | None, device: torch.device, replicas: Replicas | None) -> None:
        self._device = device
        seed = seed if seed is not None else int.from_bytes(os.urandom(4))
        rank = 0 if replicas is None else replicas.rank
        self._heads: torch.Generator | None = None
        if replicas is not None:
            shared = torch.tensor(seed, device=device)
            replicas.equalize([shared])
            self._heads, self._heads_seed = torch.Generator(device), int(shared)
        torch.manual_seed(derive(seed, rank, Stream.DROPOUT))
        self.torch = torch.Generator(device).manual_seed(derive(seed, rank, Stream.UPDATES))
        self.numpy = np.random.default_rng(derive(seed, rank, Stream.BATCHES))

    def of_heads(self, update: int) -> torch.Generator | None:
        """The stream that all learners draw the heads of an update from; None: it is the learner's own.

        It begins anew with each update, so that learners cannot fall out of step.
        """
        if self._heads is None:
            return None
        return self._heads.manual_seed(derive(self._heads_seed, 0, Stream.HEADS, update))

    def get_state(self) -> dict[str, np.ndarray]:
        """Where the streams are, for `set_state`."""
        state = {
            "generator": self.torch.get_state().numpy(),
            "torch_rng": torch.get_rng_state().numpy(),
            "numpy_rng": np.frombuffer(json.dumps(self.numpy.bit_generator.state).encode(), np.uint8),
        }
        if self._device.type == "cuda":  # dropout draws from it
            state["cuda_rng"] = torch.cuda.get_rng_state(self._device).numpy()
        return state

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `get_state` gave."""
        self.torch.set_state(torch.from_numpy(state["generator"]))
        torch.set_rng_state(torch.from_numpy(state["torch_rng"]))
        if self._device.type == "cuda" and "cuda_rng" in state:
            torch.cuda.set_rng_state(torch.from_numpy(state["cuda_rng"]), self._device)
        self.numpy.bit_generator.state = json.loads(state["numpy_rng"].tobytes())
