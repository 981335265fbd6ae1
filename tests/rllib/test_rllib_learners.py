"""Several learners: each has its part of the replay, and all have the same networks."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from counting_env import CountingEnv

from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2, TDMPC2Config
from tdmpc_ray.rllib.acting.fragments import Fragment, Sampled
from tdmpc_ray.rllib.checkpoints.manifest import read_manifest, seal
from tdmpc_ray.rllib.learning.learner import AgentLearner
from tdmpc_ray.rllib.learning.updates import Losses
from tdmpc_ray.rllib.learning.work import Work, merged
from tdmpc_ray.rllib.loop.env_runners import shards

pytestmark = pytest.mark.usefixtures("local_ray")
for name in ("counting_env", __name__):
    ray.cloudpickle.register_pickle_by_value(__import__(name))


def config_of(overrides: dict[str, Any], *, asynchronous: bool) -> TDMPC2Config:
    """One runner alone fills the random steps, and there is room for one fragment at a time."""
    overrides = {**overrides, "model.episodic": False, "data.seed_steps": 20, "planner.method": "policy"}
    config = TDMPC2Config().environment(CountingEnv)
    config.training(
        model_size="tiny",
        overrides=overrides,
        episode_length=12,
        steps_per_iteration=100,
        max_time_s_per_iteration=3.0,
        asynchronous=asynchronous,
        sample_lead=20,
    )
    config.env_runners(num_env_runners=2, num_envs_per_env_runner=4, rollout_fragment_length=5)
    return config.learners(num_learners=2).debugging(seed=0, log_level="ERROR")


def contents(learner: AgentLearner) -> dict[str, Any]:
    replay, state = learner.replay, learner.get_state()
    return {
        "episodes": set(replay.obs[: len(replay), 0].astype(int).tolist()),
        "transitions": replay.transitions_added,
        "capacity": replay.capacity,
        "module": state["rl_module"]["default_policy"],
        "optimizer": state["optimizer"],
        "scale": state["updater"]["scale"],
        "rng": learner._streams.numpy.bit_generator.state["state"]["state"],
    }


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, (list, tuple)):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, (torch.Tensor, np.ndarray)):
        return bool((torch.as_tensor(ours) == torch.as_tensor(theirs)).all())
    return bool(ours == theirs)


def check_shards(algo: TDMPC2) -> None:
    """They add up and share no episode; their learners are equal in all but their random streams."""
    first, second = algo.link.call_each(contents, [{}, {}])
    assert first["transitions"] + second["transitions"] == algo.env_steps
    assert min(first["transitions"], second["transitions"]) > 40
    assert not first["episodes"] & second["episodes"]
    assert first["capacity"] == second["capacity"] == 10_000
    assert first["module"]["grad_updates"] == algo.grad_updates
    for name in ("module", "optimizer", "scale"):
        assert same(first[name], second[name]), name
    assert first["rng"] != second["rng"]


def train_until_it_fails(algo: TDMPC2) -> None:
    while True:
        algo.train()


def test_in_turns(tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
    algo = config_of(tiny_overrides, asynchronous=False).build_algo()
    try:
        while algo.grad_updates < 200:
            result = algo.train()
        check_shards(algo)
        assert algo.grad_updates == algo.env_steps
        assert result["report"]["train/loss/total"] > 0
        held = algo.env_runner_group.foreach_env_runner(
            lambda runner: int(runner.module.grad_updates), local_env_runner=False
        )
        assert held == [algo.grad_updates] * 2

        path = algo.save_to_path(tmp_path / "checkpoint")
        saved = algo.link.call_each(contents, [{}, {}])
        algo.train()
        algo.restore_from_path(path)
        assert same(algo.link.call_each(contents, [{}, {}]), saved)
        manifest = Path(path) / "manifest.json"
        saved_shards = read_manifest(Path(path))["replay"]["shards"]
        manifest.unlink()
        seal(Path(path), "replay", "", saved_shards[:1])
        with pytest.raises(UserError, match="is that of 1 learners, this run has 2: set num_learners=1"):
            algo.restore_from_path(path)

        # What one learner cannot take in must not leave the other one waiting for it in an update.
        obs, action = np.full((3, 3), np.nan, np.float32), np.zeros((2, 1), np.float32)
        broken = Fragment("broken", 0, obs, action, np.zeros(2, np.float32), terminated=False, done=True)
        for batches in ([[([broken], 2)], []], [[], [([broken], 2)]]):
            shared = {"num_updates": 3, "with_weights": True}
            algo.link.start(AgentLearner.work, [{"batches": own, **shared} for own in batches])
            with pytest.raises(UserError, match="observation at step 0 of an episode is not finite"):
                algo.link.ready(wait=True)
        check_shards(algo)
    finally:
        algo.stop()


def test_at_once_until_a_learner_dies(tiny_overrides: dict[str, Any]) -> None:
    algo = config_of(tiny_overrides, asynchronous=True).build_algo()
    try:
        while algo.grad_updates < 200:
            algo.train()
            assert algo.progress.pace.random_steps < 500  # both runners are asked
        algo._loop.drain()
        check_shards(algo)
        assert algo.progress.pace.random_steps > 20  # one runner's: the other's learner had nothing

        _, pid = algo.link.call_each(lambda learner: os.getpid(), [{}, {}])
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="the learner's process has died"):
            train_until_it_fails(algo)
    finally:
        algo.stop()


def test_a_runner_feeds_one_learner() -> None:
    sampled = [Sampled(f"of {runner}", None, 10 + runner, runner) for runner in (3, 1, 2, 5, 3)]
    assert shards(sampled, 2) == [
        [("of 3", 13), ("of 1", 11), ("of 5", 15), ("of 3", 13)],
        [("of 2", 12)],
    ]
    assert shards([Sampled("local", None, 7, 0)], 1) == [[("local", 7)]]


def test_work_is_merged() -> None:
    ours = Work(
        10, 1, 5, 4, Losses({"loss/total": 1.0}, 3, 1), 2.0, "weights", 0.5, is_ready=True, batch_wait_s=1.5
    )
    theirs = Work(20, 0, 0, 4, Losses({"loss/total": 4.0}, 3, 1), 3.0, None, 0.0, is_ready=False)
    assert merged([ours]) == ours
    losses = Losses({"loss/total": 2.5}, 3, 1)
    assert merged([ours, theirs]) == Work(30, 1, 5, 4, losses, 3.0, "weights", 0.5, False, batch_wait_s=1.5)


def test_learners_that_lack_something_are_refused(tiny_overrides: dict[str, Any]) -> None:
    config = config_of(tiny_overrides, asynchronous=False)
    config.validate()
    with pytest.raises(UserError, match=r"num_learners=2 needs .* env_runners\(num_env_runners=2\)"):
        config.copy().env_runners(num_env_runners=1).validate()
    with pytest.raises(UserError, match=r"update\.batch_size=7 must be a multiple of num_learners=2"):
        config.copy().training(overrides={"update.batch_size": 7}).validate()
    with pytest.raises(UserError, match=r"data\.capacity=7 is too small for num_learners=2"):
        config.copy().training(overrides={"data.capacity": 7}).validate()
    with pytest.raises(UserError, match=r"num_gpus_per_learner=0\.5: several learners cannot share a GPU"):
        config.copy().learners(num_gpus_per_learner=0.5).validate()
