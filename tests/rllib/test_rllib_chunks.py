"""Chunks of replays in a folder: written once, checked when read, collected when nobody needs them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow.fs import FSSpecHandler, LocalFileSystem, PyFileSystem

from tdmpc_ray.core.replay.chunks import forget_rows
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.datasets.chunk_store import ChunkStore, DamagedCheckpoint, write_whole
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.checkpoints.garbage import collect_replays
from tdmpc_ray.rllib.checkpoints.manifest import chunk_names, is_complete, read_manifest, seal, verify
from tdmpc_ray.rllib.checkpoints.saved_replay import SavedReplay

ROWS = 16


def small_replay() -> SequenceReplay:
    replay = SequenceReplay(400, (2,), 1, horizon=3)
    replay.chunk_rows, replay.changed = ROWS, np.zeros(-(-400 // ROWS), np.bool_)
    return replay


def add_steps(replay: SequenceReplay, steps: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    obs, action = rng.normal(size=(steps + 1, 2)), rng.normal(size=(steps, 1))
    replay.add(f"episode {seed}", 0, obs, action, np.zeros(steps), terminated=False, done=True)


@pytest.fixture
def store(tmp_path: Path) -> ChunkStore:
    return ChunkStore(LocalFileSystem(), str(tmp_path / "replay"))


def files(store: ChunkStore) -> set[str]:
    return set(os.listdir(store.folder))


def same_content(one: SequenceReplay, two: SequenceReplay) -> bool:
    names = ("obs", "action", "reward", "terminated", "next_row", "valid")
    return one.rows_written == two.rows_written and all(
        np.array_equal(getattr(one, name), getattr(two, name)) for name in names
    )


def test_a_save_adds_what_is_new(store: ChunkStore) -> None:
    replay = small_replay()
    saved = SavedReplay(replay)
    add_steps(replay, 10 * ROWS)
    first = saved.save(store, {})
    assert files(store) == {*first["chunks"], first["state"]}
    assert len(first["chunks"]) == 11
    add_steps(replay, ROWS // 2, seed=1)
    second = saved.save(store, {})
    assert len(files(store) - {*first["chunks"], first["state"]}) == 2  # the last chunk and the state
    assert saved.save(store, {}) == second
    again = small_replay()
    SavedReplay(again).load(store, second)
    assert same_content(again, replay)


def test_a_restored_replay_goes_on_where_it_was(store: ChunkStore) -> None:
    replay = small_replay()
    add_steps(replay, 10 * ROWS)
    manifest = SavedReplay(replay).save(store, {"extra": np.arange(3)})
    again = small_replay()
    saved = SavedReplay(again)
    assert saved.load(store, manifest)[0]["extra"].tolist() == [0, 1, 2]
    before = files(store)
    add_steps(again, 4, seed=1)
    saved.save(store, {})
    assert len(files(store) - before) == 2


def test_what_others_deleted_is_written_again(store: ChunkStore) -> None:
    """After an exploit of PBT, the donor's chunks may be gone before this trial has saved."""
    replay = small_replay()
    saved = SavedReplay(replay)
    add_steps(replay, 10 * ROWS)
    manifest = saved.save(store, {})
    for name in (manifest["chunks"][3], manifest["state"]):
        os.unlink(f"{store.folder}/{name}")
    assert saved.save(store, {}) == manifest
    assert files(store) == {*manifest["chunks"], manifest["state"]}


def test_the_ring_may_turn_between_two_saves(store: ChunkStore) -> None:
    replay, again = small_replay(), small_replay()
    saved, loaded = SavedReplay(replay), SavedReplay(again)
    for seed in range(12):
        add_steps(replay, 90, seed)
        loaded.load(store, saved.save(store, {}))
        assert same_content(again, replay)
        assert again.num_valid == replay.num_valid > 0


def test_chunks_of_another_length_are_read(store: ChunkStore) -> None:
    replay, again = small_replay(), small_replay()
    add_steps(replay, 10 * ROWS)
    manifest = SavedReplay(replay).save(store, {})
    again.chunk_rows, again.changed = 3 * ROWS, np.zeros(-(-400 // (3 * ROWS)), np.bool_)
    saved = SavedReplay(again)
    saved.load(store, manifest)
    assert same_content(again, replay)
    third = small_replay()
    SavedReplay(third).load(store, saved.save(store, {}))
    assert same_content(third, replay)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_chunk_is_named_and_leaves_nothing_half_loaded(store: ChunkStore, damage: str) -> None:
    replay = small_replay()
    add_steps(replay, 10 * ROWS)
    manifest = SavedReplay(replay).save(store, {})
    path = Path(store.folder, manifest["chunks"][5])
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes({"flip": data, "cut": data[:100], "gone": b""}[damage])
    if damage == "gone":
        path.unlink()
    with pytest.raises(DamagedCheckpoint, match=path.name) as error:
        SavedReplay(replay).load(store, manifest)
    assert ("missing" if damage == "gone" else "damaged") in str(error.value)
    assert len(replay) == replay.num_valid == 0


@pytest.mark.parametrize("lost", [0, 5, 10])
def test_the_rest_of_a_damaged_replay_is_salvaged(store: ChunkStore, lost: int) -> None:
    replay = small_replay()
    saved = SavedReplay(replay)
    for number in range(10):
        add_steps(replay, ROWS, seed=number)
    replay.add("open", 0, np.ones((3, 2)), np.ones((2, 1)), np.zeros(2), terminated=False, done=False)
    manifest = saved.save(store, {})
    assert len(manifest["chunks"]) == 11
    os.unlink(f"{store.folder}/{manifest['chunks'][lost]}")
    again = small_replay()
    salvaged = SavedReplay(again)
    _, (line,) = salvaged.load(store, manifest, salvage=True)
    assert line.startswith(f"{store.folder}/{manifest['chunks'][lost]} is missing; its ")
    gone = set(range(lost * ROWS, min((lost + 1) * ROWS, len(replay))))
    assert again.num_valid == again.valid.sum() < replay.num_valid
    rows = again.sample_rows(2000, np.random.default_rng(0))
    assert not gone & set(rows.ravel().tolist())
    whole = replay.sample_rows(5000, np.random.default_rng(0))
    kept = {tuple(column) for column in whole.T.tolist() if not gone & set(column)}
    assert {tuple(column) for column in rows.T.tolist()} == kept
    assert np.array_equal(again.obs[rows], replay.obs[rows])
    assert ("open" in again.lanes) == (lost != 10)
    third = small_replay()
    assert SavedReplay(third).load(store, salvaged.save(store, {}))[1] == []
    assert third.num_valid == again.num_valid


def test_stacks_of_frames_that_reach_into_lost_rows_are_given_up() -> None:
    replay = SequenceReplay(100, (6, 4, 4), 1, horizon=2, num_frames=3)
    obs = np.arange(21, dtype=np.uint8)[:, None, None, None] * np.ones((1, 6, 4, 4), np.uint8)
    replay.add("a", 0, obs, np.zeros((20, 1)), np.zeros(20), terminated=False, done=True)
    forget_rows(replay, 8, 2)
    starts = set(replay.sample_rows(500, np.random.default_rng(0))[0].tolist())
    # Sequences 6 and 7 end in the lost rows; the stacks of 10 and 11 begin there.
    assert starts == set(range(19)) - {6, 7, 8, 9, 10, 11}


class Unsteady(MemoryFileSystem):
    """Fails at the first attempts, like an object store over a bad line."""

    cachable = False
    failures = 0

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if mode == "rb" and self.failures:
            self.failures -= 1
            raise OSError("timed out")
        return super()._open(path, mode, **kwargs)


def test_a_bad_line_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    remote = Unsteady()
    store = ChunkStore(PyFileSystem(FSSpecHandler(remote)), "unsteady/replay")
    name = store.put(b"data")
    assert store.missing([name, "other"]) == {"other"}
    remote.failures = 3
    assert store.get(name) == b"data"
    remote.failures = 4
    with pytest.raises(UserError, match=r"cannot be read now \(timed out\): try again later") as error:
        store.get(name)
    assert not isinstance(error.value, DamagedCheckpoint)
    with pytest.raises(DamagedCheckpoint, match="is missing"):
        store.get("other")


def test_a_write_is_whole_or_not_at_all(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    script = (
        "import resource, sys\n"
        "from pyarrow.fs import LocalFileSystem\n"
        "from tdmpc_ray.datasets.chunk_store import write_whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "write_whole(LocalFileSystem(), sys.argv[1], b'x' * 20_000)\n"
    )
    path = tmp_path / "folder" / "file"
    write_whole(LocalFileSystem(), str(path), b"before")
    ended = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert "OSError: [Errno 27] File too large" in ended.stderr
    assert path.read_bytes() == b"before"
    assert os.listdir(path.parent) == ["file"]


def checkpoint(folder: Path, store: ChunkStore, saved: SavedReplay) -> set[str]:
    folder.mkdir(parents=True)
    (folder / "state").write_bytes(b"some state")
    seal(folder, "../../replay", store.folder, [saved.save(store, {})])
    return chunk_names(read_manifest(folder))


def test_collecting_keeps_what_any_checkpoint_names(tmp_path: Path, store: ChunkStore) -> None:
    experiment, replay, other = tmp_path, small_replay(), small_replay()
    saved = SavedReplay(replay)
    add_steps(replay, 60)
    first = checkpoint(experiment / "a" / "checkpoint_000000", store, saved)
    add_steps(replay, 60, seed=1)
    second = checkpoint(experiment / "a" / "checkpoint_000001", store, saved)
    add_steps(other, 30, seed=2)
    third = checkpoint(experiment / "b" / "checkpoint_000000", store, SavedReplay(other))
    orphan = store.put(b"of a checkpoint that was never finished")
    (Path(store.folder) / "being-written.part").write_bytes(b"x")
    assert collect_replays(LocalFileSystem(), str(experiment)) == 39
    assert files(store) == first | second | third | {"being-written.part"}
    os.utime(Path(store.folder) / "being-written.part", (0, 0))
    (experiment / "a" / "checkpoint_000000" / "manifest.json").unlink()
    (experiment / "b" / "checkpoint_000000" / "manifest.json").write_bytes(b"torn")
    collect_replays(LocalFileSystem(), str(experiment))
    assert files(store) == second
    assert orphan not in files(store)
    assert collect_replays(LocalFileSystem(), str(tmp_path / "b")) == 0  # no chunks there


def test_nothing_is_deleted_while_a_checkpoint_cannot_be_read(tmp_path: Path, store: ChunkStore) -> None:
    replay = small_replay()
    add_steps(replay, 60)
    names = checkpoint(tmp_path / "a" / "checkpoint_000000", store, SavedReplay(replay))
    manifest = tmp_path / "a" / "checkpoint_000000" / "manifest.json"
    manifest.unlink()
    manifest.mkdir()  # cannot be opened, and is not missing either
    with pytest.raises(OSError, match="manifest"):
        collect_replays(LocalFileSystem(), str(tmp_path))
    assert files(store) == names


class TestManifest:
    def test_every_file_is_checked(self, tmp_path: Path) -> None:
        for name in ("state", "nested/networks"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(name.encode())
        seal(tmp_path)
        assert set(verify(tmp_path)["files"]) == {"state", "nested/networks"}
        (tmp_path / "nested" / "networks").write_bytes(b"nested/networkz")
        assert is_complete(tmp_path)
        with pytest.raises(DamagedCheckpoint, match="nested/networks is damaged"):
            verify(tmp_path)
        with pytest.raises(DamagedCheckpoint, match="nested/networks is damaged"):
            verify(tmp_path, below="nested")
        (tmp_path / "state").unlink()
        assert not is_complete(tmp_path)
        with pytest.raises(DamagedCheckpoint, match="state is missing"):
            verify(tmp_path, below="state")

    @pytest.mark.parametrize(
        "change", [(b'"format": 2', b'"format": 3'), (b'"state"', b'"stats"'), (b"}", b"")]
    )
    def test_a_damaged_manifest_is_named(self, tmp_path: Path, change: tuple[bytes, bytes]) -> None:
        (tmp_path / "state").write_bytes(b"some state")
        seal(tmp_path)
        path = tmp_path / "manifest.json"
        path.write_bytes(path.read_bytes().replace(*change))
        with pytest.raises(DamagedCheckpoint, match=r"manifest\.json is (damaged|of format 3)"):
            verify(tmp_path)
