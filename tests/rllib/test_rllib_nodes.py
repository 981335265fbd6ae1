"""Nodes that leave a cluster and come back; several raylets on this machine."""

import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from counting_env import CountingEnv
from ray.cluster_utils import Cluster

from tdmpc_ray.rllib import TDMPC2, TDMPC2Config

ray.cloudpickle.register_pickle_by_value(sys.modules["counting_env"])
pytestmark = pytest.mark.slow

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    if ray.is_initialized():
        ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def build(overrides: dict[str, Any], asynchronous: bool) -> TDMPC2:
    config = TDMPC2Config().environment(CountingEnv)
    overrides = {**overrides, "model.episodic": False, "data.seed_steps": 50, "planner.method": "policy"}
    config.training(
        model_size="tiny",
        overrides=overrides,
        episode_length=12,
        steps_per_iteration=100,
        max_time_s_per_iteration=2.0,
        asynchronous=asynchronous,
    )
    config.env_runners(
        num_env_runners=2, num_cpus_per_env_runner=0, custom_resources_per_env_runner={"rollout": 1}
    )
    return config.debugging(seed=0, log_level="ERROR").build_algo()


def homes(algo: TDMPC2) -> dict[int, str]:
    """Node of each runner in service."""
    return dict(
        algo.env_runner_group.foreach_env_runner(
            lambda runner: (runner.worker_index, ray.get_runtime_context().get_node_id()),
            local_env_runner=False,
        )
    )


def train_until(algo: TDMPC2, is_reached: Any, deadline_s: float) -> None:
    deadline = time.monotonic() + deadline_s
    while not is_reached():
        assert time.monotonic() < deadline, "not reached"
        algo.train()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_node_leaves_and_there_is_room_elsewhere(
    asynchronous: bool, cluster: Cluster, tiny_overrides: dict[str, Any]
) -> None:
    nodes = [cluster.add_node(**NODE, resources={"rollout": 2}) for _ in range(2)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    algo = build(tiny_overrides, asynchronous)
    try:
        train_until(algo, lambda: algo.grad_updates > 100, 120)
        gone = homes(algo)[1]
        cluster.remove_node(next(n for n in nodes if n.node_id == gone), allow_graceful=False)
        before = algo.env_steps
        train_until(algo, lambda: len(homes(algo)) == 2 and gone not in homes(algo).values(), 180)
        train_until(algo, lambda: algo.env_steps > before + 300, 120)
        assert algo.progress.counters.lost_fragments <= 2
    finally:
        algo.stop()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_node_leaves_without_room_elsewhere_and_one_comes_back(
    asynchronous: bool, cluster: Cluster, tiny_overrides: dict[str, Any]
) -> None:
    nodes = [cluster.add_node(**NODE, resources={"rollout": 1}) for _ in range(2)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    algo = build(tiny_overrides, asynchronous)
    try:
        train_until(algo, lambda: algo.grad_updates > 100, 120)
        gone = homes(algo)[1]
        cluster.remove_node(next(n for n in nodes if n.node_id == gone), allow_graceful=False)
        train_until(algo, lambda: len(homes(algo)) == 1, 120)
        before = algo.env_steps
        train_until(algo, lambda: algo.env_steps > before + 1000, 180)  # RLlib waits 30 s in each iteration
        assert len(homes(algo)) == 1
        cluster.add_node(**NODE, resources={"rollout": 1})
        train_until(algo, lambda: len(homes(algo)) == 2, 180)
        before = algo.env_steps
        train_until(algo, lambda: algo.env_steps > before + 300, 120)
        assert algo.progress.counters.lost_fragments <= 1
    finally:
        algo.stop()


def test_all_nodes_leave_and_one_comes_back(cluster: Cluster, tiny_overrides: dict[str, Any]) -> None:
    nodes = [cluster.add_node(**NODE, resources={"rollout": 1}) for _ in range(2)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    algo = build(tiny_overrides, asynchronous=True)
    try:
        train_until(algo, lambda: algo.grad_updates > 100, 120)
        for node in nodes:
            cluster.remove_node(node, allow_graceful=False)
        train_until(algo, lambda: not homes(algo), 120)
        iterations = iter(range(5))
        train_until(algo, lambda: next(iterations, None) is None, 120)  # where RLlib waits 30 s in each
        cluster.add_node(**NODE, resources={"rollout": 1})
        train_until(algo, lambda: len(homes(algo)) == 1, 180)
        before = algo.env_steps
        train_until(algo, lambda: algo.env_steps > before + 300, 120)
    finally:
        algo.stop()
