"""Datasets on disk: written, read, drawn from, grown; what goes wrong leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.datasets.chunk_store import DamagedCheckpoint
from tdmpc_ray.datasets.dataset import Dataset, DatasetReplay
from tdmpc_ray.datasets.episode import Episode
from tdmpc_ray.datasets.manifest import Source
from tdmpc_ray.datasets.sources import read_episodes, require_source
from tdmpc_ray.datasets.writer import CHUNKS, DatasetWriter, writing
from tdmpc_ray.errors import UserError

HORIZON = 3


def episode(number: int, steps: int, obs: int = 2, **changes: Any) -> Episode:
    """Every number tells its episode and step."""
    at = 100 * number + np.arange(steps + 1, dtype=np.float32)
    values = {
        "source": f"episode {number}",
        "obs": np.repeat(at[:, None], obs, 1),
        "action": np.full((steps, 1), number / 100, np.float32),
        "reward": at[:-1] + 0.5,
    }
    return Episode(**{**values, **changes})


def write(folder: Path, episodes: dict[str, list[Episode]], name: str = "first", **options: Any) -> Dataset:
    with writing(folder, **options) as writer:
        source = writer.begin(Source(kind="episodes", place=name))
        for task, of_task in episodes.items():
            for one in of_task:
                writer.add(one, source, task)
    return Dataset(folder)


def draw(dataset: Dataset, tasks: list[str], num: int = 400, **options: Any) -> Any:
    replay = DatasetReplay(dataset, tasks, (3,), 2, HORIZON, **options)
    return replay, replay.sample(num, np.random.default_rng(0)).to("cpu")


@pytest.mark.parametrize("half", [False, True])
def test_every_sequence_of_every_episode_is_drawn_and_no_other(tmp_path: Path, half: bool) -> None:
    lengths = {"walk": [5, 2, 9], "run": [3, 4]}
    episodes = {
        task: [episode(3 * place + n, steps, 2 + place) for n, steps in enumerate(steps)]
        for place, (task, steps) in enumerate(lengths.items())
    }
    dataset = write(tmp_path / "data", episodes, half=half)
    replay, batch = draw(dataset, ["run", "walk"], is_set=True)
    assert (replay.num_valid, replay.transitions_added, replay.left_out) == (3 + 0 + 7 + 1 + 2, 23, 2)
    first = batch.obs[0, :, 0]
    long_enough = ((0, 5), (2, 9), (3, 3), (4, 4))
    expected = {100 * n + t for n, steps in long_enough for t in range(steps - HORIZON + 1)}
    assert set(first.int().tolist()) == expected
    assert (batch.obs[:, :, 0] == first + torch.arange(HORIZON + 1)[:, None]).all()
    assert (batch.reward[..., 0] == batch.obs[:-1, :, 0] + 0.5).all()
    assert (batch.task == (first < 300).long()).all(), "ids are places in the list of tasks"
    assert (batch.obs[:, first < 300, 2] == 0).all(), "filled up with zeros"
    assert (batch.action[..., 1] == 0).all()
    assert batch.mask is None
    only, batch = draw(dataset, ["walk"])
    assert (only.num_tasks, batch.task) == (0, None)
    assert (batch.obs[0, :, 0] < 300).all()


def test_short_sequences_repeat_their_end_and_say_so(tmp_path: Path) -> None:
    dataset = write(tmp_path / "data", {"walk": [episode(1, 2, terminated=True)]})
    replay, batch = draw(dataset, ["walk"], allow_short=True)
    assert (replay.num_valid, replay.left_out) == (2, 0)
    from_start = batch.obs[0, :, 0] == 100
    assert batch.obs[:, from_start, 0].T.unique(dim=0).tolist() == [[100, 101, 102, 102]]
    assert batch.mask[:, from_start, 0].T.unique(dim=0).tolist() == [[1, 1, 0]]
    assert batch.terminated[:, from_start, 0].T.unique(dim=0)[0, :2].tolist() == [0, 1]
    with pytest.raises(UserError, match=r"no episode in .* has planner\.horizon=3 steps"):
        draw(dataset, ["walk"])


def test_frames_are_kept_once_and_stacked_as_a_replay_stacks_them(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (9, 3, 4, 4), np.uint8)
    steps = np.arange(9)
    stacks = np.concatenate([frames[np.maximum(steps - back, 0)] for back in (2, 1, 0)], axis=1)
    vector = np.arange(18, dtype=np.float32).reshape(9, 2)
    one = episode(0, 8, obs=1, vector=vector)
    images = [Episode(**{**vars(one), "obs": stacks})] * 2
    dataset = write(tmp_path / "data", {"see": images})
    (part,) = dataset.manifest.parts
    assert dataset.columns(part)["obs"].shape == (18, 3, 4, 4)
    shape = ((9, 4, 4), 1, HORIZON)
    ours = DatasetReplay(dataset, ["see"], *shape)
    theirs = SequenceReplay(40, *shape, 3, vector_dim=2)
    obs = {"image": stacks, "vector": vector}
    theirs.add("0", 0, obs, one.action, one.reward, terminated=False, done=True)  # type: ignore[arg-type]
    found = {}
    for replay in (ours, theirs):
        batch = replay.sample(100, np.random.default_rng(1)).to("cpu")
        assert batch.vector is not None
        for n in range(100):
            found.setdefault(int(batch.vector[0, n, 0]), []).append(batch.obs[:, n].numpy())
    assert len(found) == 6
    assert all((value == values[0]).all() for values in found.values() for value in values)


def test_a_dataset_is_read_back_episode_by_episode(tmp_path: Path) -> None:
    walks = [episode(0, 5, success=True), episode(1, 7, terminated=True)]
    written = {"walk": walks, "run": [episode(2, 3, 3)]}
    write(tmp_path / "data", written)
    require_source(str(tmp_path / "data"))
    found = list(read_episodes(str(tmp_path / "data")))
    expected = [one for of_task in written.values() for one in of_task]
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("obs", "action", "reward"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert (ours.terminated, ours.success) == (theirs.terminated, theirs.success)
    assert [one.task for one in found] == ["walk", "walk", "run"]


def test_a_dataset_grows_and_what_fails_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write(folder, {"walk": [episode(0, 5)]})
    files = sorted(path.name for path in (folder / CHUNKS).iterdir())
    wrong = episode(2, 5, reward=np.full(5, np.nan, np.float32))
    with pytest.raises(UserError, match="episode 2 has a number in 'reward' that is not finite"):
        write(folder, {"walk": [episode(1, 5), wrong]}, "second")
    assert sorted(path.name for path in (folder / CHUNKS).iterdir()) == files
    with pytest.raises(UserError, match=r"first is in .*data already"):
        write(folder, {"walk": [episode(1, 5)]})
    with pytest.raises(UserError, match=r"episode 1 observes \[3\] and acts by 1 numbers, others of"):
        write(folder, {"walk": [episode(1, 5, obs=3)]}, "third")
    with pytest.raises(UserError, match="is in single precision: a dataset has one"):
        write(folder, {"walk": [episode(1, 5)]}, "third", half=True)
    grown = write(folder, {"walk": [episode(1, 6)], "run": [episode(2, 4)]}, "third")
    assert [(p.task, p.source, p.episodes, p.steps) for p in grown.manifest.parts] == [
        (0, 0, 1, 5),
        (0, 1, 1, 6),
        (1, 1, 1, 4),
    ]
    with pytest.raises(UserError, match="no episode to put into a dataset"):
        write(tmp_path / "empty", {})
    assert not (tmp_path / "empty").exists()


def test_large_tasks_are_written_chunk_by_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tdmpc_ray.datasets.writer._CHUNK_BYTES", 500)
    dataset = write(tmp_path / "data", {"walk": [episode(n, 10) for n in range(12)]})
    assert len(dataset.manifest.parts) > 3
    replay, batch = draw(dataset, ["walk"])
    assert set((batch.obs[0, :, 0] // 100).tolist()) == set(range(12))
    shards = [DatasetReplay(dataset, ["walk"], (2,), 1, HORIZON, shard=(rank, 2)) for rank in range(2)]
    assert sum(shard.num_valid for shard in shards) == replay.num_valid


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with pytest.raises(UserError, match=r"is no dataset: it has no dataset\.json"):
        Dataset(folder)
    dataset = write(folder, {"walk": [episode(0, 50)]})
    (part,) = dataset.manifest.parts
    file = folder / CHUNKS / part.chunk
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DamagedCheckpoint, match="is damaged"):
        Dataset(folder).columns(part)
    file.unlink()
    with pytest.raises(DamagedCheckpoint, match="is missing"):
        Dataset(folder).columns(part)
    with pytest.raises(UserError, match="unknown task 'wlak': did you mean 'walk'"):
        dataset.of_tasks(["wlak"])
    (folder / "dataset.json").write_text("{")
    with pytest.raises(UserError, match=r"dataset\.json is damaged"):
        Dataset(folder)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="holds something else: choose a new folder"):
        write(tmp_path, {"walk": [episode(0, 5)]})


def test_two_at_once_do_not_write(tmp_path: Path) -> None:
    with writing(tmp_path / "data") as writer:
        assert isinstance(writer, DatasetWriter)
        with pytest.raises(UserError, match="is in use: another process adds"), writing(tmp_path / "data"):
            pass
        writer.add(episode(0, 5), writer.begin(Source(kind="episodes", place="x")), "walk")
    assert Dataset(tmp_path / "data").manifest.rows == 6


def test_what_is_drawn_does_not_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mapped_kib() -> int:
        """Of the dataset's files, in this process."""
        parts = Path("/proc/self/smaps").read_text().split("VmFlags:")
        return sum(int(part.partition("Rss:")[2].split()[0]) for part in parts if str(tmp_path) in part)

    dataset = write(tmp_path / "data", {"walk": [episode(number, 5000) for number in range(20)]})
    replay = DatasetReplay(dataset, ["walk"], (2,), 1, HORIZON)
    first = [replay.sample(256, np.random.default_rng(seed)) for seed in range(4)]
    assert mapped_kib() > 1000
    monkeypatch.setattr("tdmpc_ray.datasets.dataset._MOST_MAPPED", 0)
    again = [replay.sample(256, np.random.default_rng(seed)) for seed in range(4)]
    assert all(torch.equal(one.obs, other.obs) for one, other in zip(first, again, strict=True))
    before = mapped_kib()
    replay._bound_memory(1)
    assert mapped_kib() < 0.1 * before
