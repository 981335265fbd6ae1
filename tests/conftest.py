"""What several suites share: one torch thread, a small local Ray, the one tiny config."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.setdefault("MUJOCO_GL", "egl")

import pytest
import torch

torch.set_num_threads(1)

# A model and a planner that cost next to nothing and still have every part.
TINY = {
    "model.enc_dim": 16,
    "model.mlp_dim": 16,
    "model.latent_dim": 16,
    "planner.num_samples": 16,
    "planner.num_elites": 4,
    "planner.num_pi_trajs": 2,
    "planner.iterations": 2,
    "update.batch_size": 8,
    "data.capacity": 20_000,
}


@pytest.fixture
def tiny_overrides() -> dict[str, object]:
    return dict(TINY)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    import ray

    ray.init(
        address="local",  # not one that happens to run on this machine
        num_cpus=4,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
    )
    yield
    ray.shutdown()
