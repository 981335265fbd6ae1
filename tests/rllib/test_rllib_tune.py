"""Checkpoints in the hands of Tune: exploits, full disks, failed uploads, restarts, and an S3 server."""

import os
import resource
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import ray
from counting import counting, learner, replay_rows, same
from pyarrow.fs import FileSelector, FileSystem, LocalFileSystem
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

from tdmpc_ray.rllib import TDMPC2, CollectReplays, TDMPC2Config
from tdmpc_ray.rllib.checkpoints.garbage import collect_replays
from tdmpc_ray.rllib.checkpoints.manifest import chunk_names, read_manifest

for name in ("counting_env", "counting", __name__):
    ray.cloudpickle.register_pickle_by_value(__import__(name))


class Scored(TDMPC2):
    """The trial with the larger seed is the better one."""

    def step(self) -> dict[str, Any]:
        return {**super().step(), "score": self.config.seed, "rows": len(learner(self).replay)}


def checkpoints(experiment: Path) -> dict[str, list[Path]]:
    """Of each trial, oldest first."""
    trials = sorted(p for p in experiment.iterdir() if p.is_dir() and p.name != "replay")
    return {p.name: sorted(p.glob("checkpoint_*")) for p in trials}


def tuner(
    config: TDMPC2Config, algo: type[TDMPC2], storage: str, iterations: int, keep: int = 1, **kwargs: Any
) -> tune.Tuner:
    return tune.Tuner(
        algo,
        param_space=config,
        tune_config=tune.TuneConfig(**kwargs.pop("tune_config", {})),
        run_config=tune.RunConfig(
            name="experiment",
            storage_path=storage,
            stop={"training_iteration": iterations},
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=keep),
            callbacks=[CollectReplays(every_s=0.0)],
            verbose=0,
            **kwargs,
        ),
    )


@pytest.mark.usefixtures("local_ray")
class TestTune:
    def test_an_exploited_trial_outlives_its_donor(
        self, tmp_path: Path, tiny_overrides: dict[str, Any]
    ) -> None:
        config = counting(tiny_overrides).debugging(seed=tune.grid_search([1, 2]))
        config.training(overrides={"update.lr": 1e-3})
        scheduler = PopulationBasedTraining(
            time_attr="training_iteration",
            perturbation_interval=2,
            metric="score",
            mode="max",
            quantile_fraction=0.5,
            hyperparam_mutations={"steps_per_iteration": [40, 40]},
            # Not `synch`: with it Tune can end while a trial that waits for the others is paused.
        )
        grid = tuner(config, Scored, str(tmp_path), 10, 4, tune_config={"scheduler": scheduler}).fit()
        assert not grid.errors
        experiment = tmp_path / "experiment"
        folders = checkpoints(experiment)
        assert all(1 <= len(found) <= 5 for found in folders.values())  # Tune keeps one that another needs
        named = [chunk_names(read_manifest(path)) for found in folders.values() for path in found]
        assert set(os.listdir(experiment / "replay")) == set().union(*named)  # older ones are collected
        results = {result.config["seed"]: result for result in grid}
        assert set(results) == {2}, "both trials go on from the better one"
        donor = next(p for p in folders if "seed=2" in p)
        shutil.rmtree(experiment / donor)
        collect_replays(LocalFileSystem(), str(experiment))
        (left,) = checkpoints(experiment).values()
        algo = TDMPC2.from_checkpoint(str(left[-1]))
        try:
            assert algo.env_steps == 400
            assert learner(algo).replay.transitions_added == 400
            assert algo.train()["env_steps"] == 440
        finally:
            algo.stop()

    def test_a_full_disk_ends_no_run(self, tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
        """A limit on the size of files stands for it, at the second of three checkpoints."""

        temporary = tmp_path / "temporary"
        temporary.mkdir()

        class SmallDisk(TDMPC2):
            said: tuple[str, ...] = ()

            def save(self, checkpoint_dir: str | None = None) -> Any:
                tempfile.tempdir = str(temporary)
                before = resource.getrlimit(resource.RLIMIT_FSIZE)
                if self.iteration == 2:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
                try:
                    return super().save(checkpoint_dir)
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, before)

            def step(self) -> dict[str, Any]:
                result = super().step()
                self.said += (" ".join(result["notes"]),)
                return {**result, "said": self.said, "own_id": self.trial_id}

        config = counting(tiny_overrides)
        grid = tuner(config, SmallDisk, str(tmp_path), 3).fit()
        assert not grid.errors
        assert grid[0].metrics["training_iteration"] == 3
        said = grid[0].metrics["said"]
        # By which the process that runs a study learns what a trial is about.
        assert grid[0].metrics["own_id"] == grid[0].metrics["trial_id"]
        assert [bool(text) for text in said] == [False, False, True]
        assert said[2].startswith("no checkpoint at 80 steps: [Errno 27] ")
        (found,) = checkpoints(tmp_path / "experiment").values()
        assert len(found) == 1
        algo = TDMPC2.from_checkpoint(str(found[0]))
        assert algo.env_steps == 120
        algo.stop()
        assert not list(temporary.iterdir())

    def test_a_failed_upload_costs_no_checkpoint(
        self, tmp_path: Path, tiny_overrides: dict[str, Any]
    ) -> None:
        """Not even after a restart, when Tune numbers its checkpoints anew."""
        restarted = tmp_path / "restarted"

        class LateFailure(TDMPC2):
            def save(self, checkpoint_dir: str | None = None) -> Any:
                storage = self._storage
                if self.iteration == 2:
                    storage.persist_current_checkpoint = self.fail
                try:
                    return super().save(checkpoint_dir)
                finally:
                    storage.__dict__.pop("persist_current_checkpoint", None)

            def fail(self, *args: Any) -> None:
                raise OSError("no space left")

            def step(self) -> dict[str, Any]:
                if self.iteration == 3 and not restarted.exists():
                    restarted.touch()
                    raise RuntimeError("as the test wants")
                return super().step()

        failures = tune.FailureConfig(max_failures=1)
        grid = tuner(counting(tiny_overrides), LateFailure, str(tmp_path), 4, failure_config=failures).fit()
        assert not grid.errors
        assert restarted.exists()
        (found,) = checkpoints(tmp_path / "experiment").values()
        assert [str(path) for path in found] == [grid[0].checkpoint.path]
        algo = TDMPC2.from_checkpoint(grid[0].checkpoint.path)
        assert algo.env_steps == 160
        algo.stop()


class FailsOnce(TDMPC2):
    """In its third iteration, unless it has been restored."""

    restored_at = 0

    def restore(self, checkpoint_path: Any) -> None:
        super().restore(checkpoint_path)
        self.restored_at = self.env_steps

    def step(self) -> dict[str, Any]:
        if self.iteration == 2 and not self.restored_at:
            raise RuntimeError("as the test wants")
        return {**super().step(), "restored_at": self.restored_at}


@pytest.mark.usefixtures("local_ray")
class TestObjectStore:
    def test_saved_and_restored_by_address(self, bucket: str, tiny_overrides: dict[str, Any]) -> None:
        algo = counting(tiny_overrides).build_algo()
        algo.train()
        address = bucket.format("/by-hand/checkpoint")
        assert algo.save_to_path(address) == address
        rows = replay_rows(algo)
        algo.stop()
        copy = TDMPC2.from_checkpoint(address)
        try:
            assert same(replay_rows(copy), rows)
            assert copy.train()["env_steps"] == 80
        finally:
            copy.stop()

    def test_tune_keeps_and_restores_there(self, bucket: str, tiny_overrides: dict[str, Any]) -> None:
        config = counting(tiny_overrides)
        filesystem, folder = FileSystem.from_uri(bucket.format("/tune"))
        first = tuner(config, TDMPC2, folder, 2, storage_filesystem=filesystem).fit()
        assert not first.errors
        listed = filesystem.get_file_info(FileSelector(f"{folder}/experiment/replay"))
        assert len(listed) == 2  # one chunk, one state: those of the first checkpoint are collected
        again = tune.Tuner(
            FailsOnce,
            param_space=config,
            run_config=tune.RunConfig(
                name="again",
                storage_path=folder,
                storage_filesystem=filesystem,
                stop={"training_iteration": 3},
                failure_config=tune.FailureConfig(max_failures=1),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
                verbose=0,
            ),
        ).fit()
        assert not again.errors
        assert again[0].metrics["env_steps"] == 120
        assert again[0].metrics["restored_at"] == 80
        algo = counting(tiny_overrides).build_algo()
        try:
            checkpoint = first[0].checkpoint
            algo.restore_from_path(checkpoint.path, filesystem=checkpoint.filesystem)
            assert learner(algo).replay.transitions_added == 80
        finally:
            algo.stop()
