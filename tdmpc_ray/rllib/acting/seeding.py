"""Where the random streams of a run begin: each at a number of its own, by `numpy.random.SeedSequence`.

RLlib adds a worker's index to the run's seed, so that runner 2 of seed 0 would draw what runner 1 of seed 1
draws. Only the initial weights of the networks come from the run's seed itself, as RLlib sets it.
"""

from __future__ import annotations

import random
from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What is drawn."""

    PLANS = 0  # random actions, too
    ENVIRONMENTS = 1
    GLOBALS = 2  # of an env runner's process
    LOADED_PLANS = 3  # of an agent that was loaded from a checkpoint
    UPDATES = 4
    BATCHES = 5
    DROPOUT = 6  # torch's global generator, in a learner's process
    HEADS = 7


def derive(seed: int, worker: int, stream: Stream, *progress: int) -> int:
    """The seed of one stream.

    Args:
        seed: of the run.
        worker: index of the env runner, or rank of the learner.
        progress: what else tells it from others: how many updates, steps or restarts it begins after.

    Returns:
        64 bits, of which PyTorch's generator of the CPU reads the lower half.
    """
    # Of fixed width, so that no two lists of numbers read alike.
    words = [word for number in (worker, *progress) for word in divmod(number, 2**32)]
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, *words))
    return int(sequence.generate_state(1, np.uint64)[0])


def seed_globals(seed: int, with_torch: bool) -> None:
    """Begin the streams anew that code of others may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if with_torch:
        torch.manual_seed(seed)
