"""Which GPUs a trial asks for and gets, on a Ray that is told of two; nothing computes on them."""

from collections.abc import Iterator

import pytest
import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tdmpc_ray.rllib import TDMPC2, TDMPC2Config


@pytest.fixture(scope="module", autouse=True)
def two_gpus() -> Iterator[None]:
    ray.shutdown()  # the one that other modules share
    ray.init(
        address="local",
        num_cpus=8,
        num_gpus=2,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
    )
    yield
    ray.shutdown()


def config_of(num_learners: int, gpus_per_learner: float, gpus_per_env_runner: float) -> TDMPC2Config:
    config = TDMPC2Config().environment("walker-walk")
    config.learners(num_learners=num_learners, num_gpus_per_learner=gpus_per_learner)
    return config.env_runners(
        num_env_runners=4, num_envs_per_env_runner=64, num_gpus_per_env_runner=gpus_per_env_runner
    )


@ray.remote
def gpus() -> list[int]:
    return ray.get_gpu_ids()


def without_memory(bundle: dict[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in bundle.items() if name != "memory"}


def ids_in(group: PlacementGroup) -> list[list[int]]:
    """The GPUs of each bundle, from inside it, all at once as the actors of a trial."""
    actors = []
    for index, bundle in enumerate(group.bundle_specs):
        place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
        options = {"num_cpus": bundle.get("CPU", 0), "num_gpus": bundle.get("GPU", 0)}
        actors.append(gpus.options(scheduling_strategy=place, **options).remote())
    return ray.get(actors)


@pytest.mark.parametrize(
    ("num_learners", "main", "learners"),
    [
        (0, {"CPU": 1, "GPU": 1}, []),
        (1, {"CPU": 1}, [{"GPU": 1}]),
        (2, {"CPU": 1}, [{"GPU": 1}] * 2),
    ],
)
def test_learners_have_a_gpu_each_and_runners_share_one(
    num_learners: int, main: dict[str, float], learners: list[dict[str, float]]
) -> None:
    on_gpu = 0.25 if num_learners < 2 else 0.0
    runner = {"CPU": 1, "GPU": 0.25} if on_gpu else {"CPU": 1}
    request = TDMPC2.default_resource_request(config_of(num_learners, 1, on_gpu).to_dict())
    assert [without_memory(b) for b in request.bundles] == [main, *[runner] * 4, *learners]
    replays = request.bundles[5:] if num_learners else request.bundles[:1]
    assert all("memory" in bundle for bundle in replays)
    assert sum("memory" in bundle for bundle in request.bundles) == len(replays)
    group = request.to_placement_group()
    try:
        assert group.wait(60)
        assert ray.available_resources().get("GPU", 0) == 0
        ids = ids_in(group)
        of_runners, of_learners = ids[1:5], ids[5:] if num_learners else ids[:1]
        assert all(len(one) == 1 for one in of_learners)
        assert len({one[0] for one in of_learners}) == len(of_learners)
        if on_gpu:
            assert len({one[0] for one in of_runners}) == 1
            assert of_runners[0] != of_learners[0]
        else:
            assert of_runners == [[]] * 4
    finally:
        ray.util.remove_placement_group(group)


def test_what_does_not_fit_waits() -> None:
    request = TDMPC2.default_resource_request(config_of(2, 1, 0.25).to_dict())
    assert without_memory(request.required_resources) == {"CPU": 5, "GPU": 3}
    group = request.to_placement_group()
    try:
        assert not group.wait(2)
    finally:
        ray.util.remove_placement_group(group)
