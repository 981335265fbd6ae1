"""The random streams of a learner, which go on after a restore as if nothing had happened."""

from __future__ import annotations

import json
import os

import numpy as np
import torch

from tdmpc_ray.core.parallel import Replicas


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
        self._heads: torch.Generator | None = None
        if replicas is not None:
            shared = torch.tensor(seed, device=device)
            replicas.equalize([shared])
            self._heads, self._heads_seed = torch.Generator(device), int(shared)
            if replicas.rank > 0:
                seed = int(np.random.SeedSequence([seed, replicas.rank]).generate_state(1)[0])
                torch.manual_seed(seed)  # RLlib has seeded all alike, and dropout draws from this one
        self.torch = torch.Generator(device)
        self.torch.manual_seed(seed)
        self.numpy = np.random.default_rng(seed)

    def of_heads(self, update: int) -> torch.Generator | None:
        """The stream that all learners draw the heads of an update from; None: it is the learner's own.

        It begins anew with each update, so that learners cannot fall out of step.
        """
        return None if self._heads is None else self._heads.manual_seed(self._heads_seed + update)

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
