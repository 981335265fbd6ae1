"""TDMPC2 as RLlib users meet it: configuration, checkpoints, remote parts, evaluation, Tune."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray import tune
from walker import walker

from tdmpc_ray.errors import PassingError, UserError
from tdmpc_ray.rllib import TDMPC2
from tdmpc_ray.rllib.checkpoints.load import find_checkpoint
from tdmpc_ray.rllib.evaluation.of_checkpoints import evaluate_checkpoint, load_agent
from tdmpc_ray.rllib.learning.learner import AgentLearner

ray.cloudpickle.register_pickle_by_value(__import__("counting_env"))
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def learner(algo: TDMPC2) -> AgentLearner:
    return algo.learner_group._learner


def same(one: Any, two: Any) -> bool:
    """Bitwise equality of nested dicts, lists and arrays."""
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[k], two[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    return np.array_equal(np.asarray(one), np.asarray(two))


@pytest.mark.usefixtures("local_ray")
class TestRunning:
    def test_same_seed_same_first_200_updates(self, tiny_overrides: dict[str, Any]) -> None:
        states = []
        for _ in range(2):
            algo = walker(tiny_overrides).build_algo()
            while algo.grad_updates < 200:
                algo.train()
            states.append((learner(algo).module.get_state(), learner(algo).replay.obs[:200].copy()))
            algo.stop()
        assert same(*states)

    def test_checkpoint_restores_every_part_bitwise(
        self, tmp_path: Path, tiny_overrides: dict[str, Any]
    ) -> None:
        algo = walker(tiny_overrides).build_algo()
        for _ in range(2):
            algo.train()
        path = algo.save_to_path(str(tmp_path / "checkpoint"))
        copy = TDMPC2.from_checkpoint(path)
        for name in ("env_steps", "grad_updates"):
            assert getattr(copy, name) == getattr(algo, name) > 0
        ours, theirs = learner(copy), learner(algo)
        assert same(ours.module.get_state(), theirs.module.get_state())
        assert same(ours._get_optimizer_state(), theirs._get_optimizer_state())
        assert ours._updater.scale == theirs._updater.scale
        encoder, rest = ours.get_optimizer(optimizer_name="world").param_groups
        assert encoder["lr"] == pytest.approx(0.3 * rest["lr"])
        for name in ("obs", "action", "reward", "terminated", "next_row", "valid"):
            assert np.array_equal(getattr(ours.replay, name), getattr(theirs.replay, name)), name
        # Same weights, moments, replay and random streams: the next updates are the same bits.
        rng = torch.get_rng_state()
        theirs.learn(5)
        torch.set_rng_state(rng)
        ours.learn(5)
        assert same(ours.module.get_state(), theirs.module.get_state())
        assert copy.train()["env_steps"] > algo.env_steps
        algo.stop()
        copy.stop()

    def test_remote_runners_and_remote_learner(self, tiny_overrides: dict[str, Any], tmp_path: Path) -> None:
        config = walker(tiny_overrides).env_runners(num_env_runners=1, num_envs_per_env_runner=2)
        algo = config.learners(num_learners=1).training(asynchronous=False).build_algo()
        try:
            for _ in range(2):
                result = algo.train()
            assert result["env_steps"] == result["grad_updates"] == 200
            assert result["report"]["train/loss/total"] > 0
            algo.save_to_path(str(tmp_path / "checkpoint"))
            chunk = max((tmp_path / "checkpoint" / "replay").iterdir(), key=lambda p: p.stat().st_size)
            assert chunk.stat().st_size > 10_000
            chunk.write_bytes(chunk.read_bytes()[:100])
            with pytest.raises(UserError, match=chunk.name):  # raised in the learner's process
                algo.restore_from_path(str(tmp_path / "checkpoint"))
        finally:
            algo.stop()

    @pytest.mark.parametrize("kind", [PassingError, UserError])
    def test_divergence_is_said(self, kind: type, tiny_overrides: dict[str, Any]) -> None:
        """From the first update on, another try would be vain."""
        algo = walker(tiny_overrides).build_algo()
        if kind is PassingError:
            algo.train()
        with torch.no_grad():
            learner(algo)._rl_module.networks.encoder[0].weight.fill_(math.inf)
        pattern = r"not finite in the last \d+ updates of \d+: lower update\.lr"
        with pytest.raises(UserError, match=pattern) as caught:
            algo.train()
        algo.stop()
        assert caught.type is kind

    def test_an_update_that_is_not_finite_is_skipped_and_counted(
        self, tiny_overrides: dict[str, Any]
    ) -> None:
        algo = walker(tiny_overrides).build_algo()
        algo.train()
        replay = learner(algo).replay
        replay.reward[:3] = math.nan  # three of hundreds: most batches of 8 are fine
        skipped = 0
        while not skipped:
            result = algo.train()
            skipped = result["skipped_updates"]
        assert skipped < result["grad_updates"]
        assert result["report"]["time/skipped_updates"] == skipped
        assert all(map(math.isfinite, result["report"].values()))
        assert all(x.isfinite().all() for x in learner(algo)._rl_module.parameters())
        algo.stop()

    def test_a_long_iteration_reports_in_parts(self, tiny_overrides: dict[str, Any]) -> None:
        """The updates after the random steps, too: and nothing is skipped by it."""
        config = walker(tiny_overrides).training(max_time_s_per_iteration=0.0, total_steps=150)
        algo = config.build_algo()
        progress = []
        try:
            while algo.env_steps < 150:
                result = algo.train()
                progress.append((result["env_steps"], result["grad_updates"]))
        finally:
            algo.stop()
        assert progress[:4] == [(25, 0), (50, 25), (50, 50), (51, 51)]
        assert progress[-1] == (150, 150)

    def test_evaluation_by_agent_steps_and_at_the_end(self, tiny_overrides: dict[str, Any]) -> None:
        config = walker(tiny_overrides).training(eval_every=80, total_steps=200)
        algo = config.build_algo()
        evaluated, report = [], {}
        try:
            while algo.env_steps < 200:
                result = algo.train()
                report = result["report"]
                if "eval/return" in report:
                    evaluated.append(result["env_steps"])
                    shown = result["evaluation"]["env_runners"]["episode_return_mean"]
                    assert shown == report["eval/return"] > 0
                    assert report["eval/episode_length"] == 500
        finally:
            algo.stop()
        assert evaluated == [80, 160, 200]
        assert report["time/env_frames"] == 400
        assert report["summary/params_total"] == learner(algo)._rl_module.networks.num_params()

    def test_agent_of_a_checkpoint_plays_without_rllib(
        self, tmp_path: Path, tiny_overrides: dict[str, Any]
    ) -> None:
        algo = walker(tiny_overrides).build_algo()
        algo.train()
        algo.save_to_path(str(tmp_path / "run" / "checkpoint"))
        algo.stop()
        shares: list[float] = []
        outcome = evaluate_checkpoint(tmp_path / "run", episodes=3, seed=1, on_progress=shares.append)
        assert shares == pytest.approx([step / 500 for step in range(1, 501)])
        assert outcome["task"] == "walker-walk"
        assert outcome["lengths"] == [500] * 3
        assert len(set(outcome["returns"])) == 3
        torch.manual_seed(99)  # the planner's stream does not depend on what ran before
        assert outcome == evaluate_checkpoint(tmp_path / "run", episodes=3, seed=1)
        policy = {"planner.method": "policy"}
        assert outcome != evaluate_checkpoint(tmp_path / "run", episodes=3, seed=1, settings=policy)

        module = find_checkpoint(tmp_path) / "learner_group/learner/rl_module/default_policy/module_state.pkl"
        module.write_bytes(module.read_bytes()[:1000])
        with pytest.raises(UserError, match="damaged"):
            load_agent(tmp_path)
        (module.parent / "class_and_ctor_args.pkl").write_bytes(b"")
        with pytest.raises(UserError, match="damaged"):
            load_agent(tmp_path)
        (module.parent / "metadata.json").unlink()
        with pytest.raises(UserError, match="no checkpoint in"):
            load_agent(tmp_path)

    def test_rllibs_old_way_to_act_names_the_new_one(self) -> None:
        algo = TDMPC2.__new__(TDMPC2)
        for ask in (algo.compute_single_action, algo.compute_actions):
            with pytest.raises(UserError, match=r"^act with tdmpc_ray\.rllib\.load_agent"):
                ask({"obs": [0.0]}, explore=False)

    def test_tune_searches_sizes_and_overrides(self, tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
        overrides = {**tiny_overrides, "update.lr": tune.grid_search([1e-3, 1e-4]), "data.seed_steps": 50}
        config = walker({}).training(overrides=overrides, total_steps=100)
        results = tune.Tuner(
            TDMPC2,
            param_space=config,
            run_config=tune.RunConfig(storage_path=str(tmp_path), stop={"env_steps": 100}, verbose=0),
        ).fit()
        assert not results.errors
        assert {r.config["agent_overrides"]["update.lr"] for r in results} == {1e-3, 1e-4}
        assert all(r.metrics["env_steps"] == 100 for r in results)
