"""Checkpoints of a whole algorithm: damaged ones, full disks, addresses."""

import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import ray
from counting import counting, learner, replay_rows, same

from tdmpc_ray.datasets.chunk_store import DamagedCheckpoint
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.checkpoints.manifest import chunk_names, read_manifest
from tdmpc_ray.rllib.learning.learner import AgentLearner

for name in ("counting_env", "counting", __name__):
    ray.cloudpickle.register_pickle_by_value(__import__(name))


@pytest.mark.usefixtures("local_ray")
class TestDamage:
    @pytest.mark.parametrize("damage", ["chunk", "networks", "half written", "manifest"])
    def test_the_checkpoint_before_is_used_and_the_file_named(
        self, tmp_path: Path, tiny_overrides: dict[str, Any], damage: str
    ) -> None:
        algo = counting(tiny_overrides).build_algo()
        try:
            algo.train()
            first = algo.save_to_path(tmp_path / "checkpoint_000000")
            at_first, steps = replay_rows(algo), algo.env_steps
            algo.train()
            newest = Path(algo.save_to_path(tmp_path / "checkpoint_000001"))
            if damage == "half written":
                (newest / "manifest.json").unlink()
                (newest / "algorithm_state.pkl").unlink()
                named = "no manifest.json|lacks manifest.json"
            else:
                named = {
                    "chunk": f"replay/{read_manifest(newest)['replay']['shards'][0]['chunks'][0]}",
                    "networks": "learner_group/learner/rl_module/default_policy/module_state.pkl",
                    "manifest": "manifest.json",
                }[damage]
                data = bytearray((newest / named).read_bytes())
                data[len(data) // 2] ^= 1
                (newest / named).write_bytes(data)
            with pytest.raises(DamagedCheckpoint, match=named):
                algo.restore_from_path(newest)
            algo.restore(str(newest))
            assert algo.env_steps == steps
            assert same(replay_rows(algo), at_first)
            (note,) = algo.train()["notes"]
            assert note.endswith("; checkpoint_000000 is used")
            algo.restore(str(first).replace("000000", "-00001"))  # deleted since
            assert algo.env_steps == steps
            (note,) = algo.train()["notes"]
            assert note.endswith("checkpoint_-00001 is missing; checkpoint_000000 is used")
            shutil.rmtree(first)
            if damage == "chunk":  # as where checkpoints share it
                algo.restore(str(newest))
                (note,) = algo.train()["notes"]
                assert note.endswith(" rows of the replay are left out")
                return
            with pytest.raises(DamagedCheckpoint, match=named):
                algo.restore(str(newest))
        finally:
            algo.stop()

    def test_a_run_that_has_ended_goes_on_with_more_steps(
        self, tmp_path: Path, tiny_overrides: dict[str, Any]
    ) -> None:
        rows = []
        for steps in (60, 120):
            algo = counting(tiny_overrides).training(total_steps=steps).build_algo()
            try:
                if steps == 120:
                    algo.restore_from_path(tmp_path / "checkpoint")
                    assert algo.env_steps == 60
                    assert same(replay_rows(algo), rows)
                while not (result := algo.train())["done"]:
                    assert result["env_steps"] < steps
                assert (result["env_steps"], result["grad_updates"]) == (steps, steps)
                algo.save_to_path(tmp_path / "checkpoint")
                rows = replay_rows(algo)
            finally:
                algo.stop()

    def test_saves_to_one_folder_leave_one_checkpoint(
        self, tmp_path: Path, tiny_overrides: dict[str, Any]
    ) -> None:
        algo = counting(tiny_overrides).build_algo()
        try:
            for _ in range(3):
                algo.train()
                algo.save_to_path(tmp_path / "checkpoint")
            assert set(os.listdir(tmp_path / "checkpoint" / "replay")) == chunk_names(
                read_manifest(tmp_path / "checkpoint")
            )
        finally:
            algo.stop()

    def test_rates_stay_those_of_the_run(self, tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
        """PBT changes them between a trial and the one that goes on from its checkpoint."""
        algo = counting({**tiny_overrides, "update.lr": 1e-3}).build_algo()
        algo.train()
        algo.train()
        path = algo.save_to_path(tmp_path / "checkpoint")
        algo.stop()
        other = counting({**tiny_overrides, "update.lr": 1e-4}).build_algo()
        try:
            other.restore_from_path(path)
            world = learner(other).get_optimizer(optimizer_name="world")
            assert sorted({group["lr"] for group in world.param_groups}) == pytest.approx([3e-5, 1e-4])
            assert all(state["step"] > 0 for state in world.state.values())
        finally:
            other.stop()

    def test_any_file_system_of_fsspec_will_do(self, tiny_overrides: dict[str, Any]) -> None:
        algo = counting(tiny_overrides).build_algo()
        try:
            algo.train()
            algo.restore_from_path(algo.save_to_path("memory://folder/checkpoint"))
            assert algo.env_steps == 40
            with pytest.raises(UserError, match="cannot reach nowhere://x"):
                algo.save_to_path("nowhere://x")
        finally:
            algo.stop()

    def test_another_number_of_rows_is_refused(self, tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
        algo = counting(tiny_overrides).build_algo()
        algo.train()
        path = algo.save_to_path(tmp_path / "checkpoint")
        algo.stop()
        other = counting({**tiny_overrides, "data.capacity": 500}).build_algo()
        try:
            with pytest.raises(UserError, match=r"data\.capacity.* \(20000, 3\), this run's has \(500, 3\)"):
                other.restore_from_path(path)
        finally:
            other.stop()

    def test_a_moved_replay_is_said(self, tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
        algo = counting(tiny_overrides).build_algo()
        try:
            algo.train()
            path = Path(algo.save_to_path(tmp_path / "checkpoint"))
            copied = Path(shutil.copytree(path, tmp_path / "elsewhere" / "checkpoint"))
            shutil.rmtree(copied / "replay")
            algo.restore_from_path(copied)  # finds it where it was written
            shutil.rmtree(path / "replay")
            with pytest.raises(
                DamagedCheckpoint, match=r"was kept in .* and is not there: bring that folder"
            ):
                algo.restore_from_path(copied)
        finally:
            algo.stop()

    def test_a_learner_without_room_lives_on(self, tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
        config = counting(tiny_overrides).env_runners(num_env_runners=1).learners(num_learners=1)
        algo = config.build_algo()
        try:
            algo.train()
            algo.link.call(limit_files, size=2000)
            with pytest.raises(UserError, match=f"cannot write to {tmp_path}.*File too large"):
                algo.save_to_path(tmp_path / "checkpoint")
            algo.link.call(limit_files, size=resource.RLIM_INFINITY)
            before = algo.env_steps
            while algo.env_steps == before:
                algo.train()
            algo.restore_from_path(algo.save_to_path(tmp_path / "checkpoint"))
        finally:
            algo.stop()


def limit_files(learner: AgentLearner, size: int) -> None:
    """Stands for a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
