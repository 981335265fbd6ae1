"""The journal on disk: what it survives, and how it is brought to MLflow."""

from __future__ import annotations

import resource
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from tracked import NOBODY, make_run, point

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.tracking import ops as run_ops
from tdmpc_ray.studies.tracking.client import connect
from tdmpc_ray.studies.tracking.spooled import REJECTED_FILE, SPOOL_FILE, replay_spool
from tdmpc_ray.studies.tracking.writer import RunWriter


def test_replay_brings_a_spool_once_however_often(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace
) -> None:
    figure = tmp_path / "figure.png"
    figure.write_bytes(b"png")
    writer = RunWriter(NOBODY, "exp", tmp_path / "spool", flush_s=0.05)
    writer.put(make_run("s"), make_run("s/1", parent="s", params={"seed": "0"}), point("s/1", 1))
    time.sleep(0.5)  # so that some has met the dead address already, and some has not
    writer.put(point("s/1", 2), run_ops.artifact("s", figure, "figures"))
    writer.put(run_ops.status("s/1", "RUNNING", time=5), run_ops.status("s/1", "FINISHED", time=9_000))
    spool = writer.close(600)  # of which it waits for none, as nobody answers there
    assert spool == tmp_path / "spool" / SPOOL_FILE
    copy = shutil.copy(spool, tmp_path / "copy.jsonl")

    assert replay_spool(store, tmp_path / "spool").delivered == 7
    assert replay_spool(store, spool).delivered == 0
    assert replay_spool(store, Path(copy)).delivered == 7
    runs = mlflow_read.runs(store, "exp")
    assert set(runs) == {"s", "s/1"}
    assert mlflow_read.points(store, runs["s/1"], "m") == [(1, 1.0), (2, 2.0)]
    assert (runs["s/1"].info.status, runs["s/1"].info.end_time) == ("FINISHED", 9_000)
    listed = connect(store).list_artifacts(runs["s"].info.run_id, "figures")
    assert [item.path for item in listed] == ["figures/figure.png"]


def test_what_a_deleted_experiment_refused_is_brought_after_its_return(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace
) -> None:
    writer = RunWriter(store, "exp", tmp_path, flush_s=0.05)
    writer.put(make_run(), point("s", 1))
    writer.close(30)
    client = connect(store)
    experiment_id = client.get_experiment_by_name("exp").experiment_id
    client.delete_experiment(experiment_id)
    again = [run_ops.status("s", "RUNNING", time=2), point("s", 2), point("s", 3)]
    writer.put(*again, make_run("s/1", parent="s"), point("s/1", 1), run_ops.status("s", "KILLED", time=7000))
    writer.close(30)
    assert writer.rejected == 6
    assert replay_spool(store, tmp_path).refused == 6
    client.restore_experiment(experiment_id)
    writer.put(point("s", 4))
    writer.close(30)
    done = replay_spool(store, tmp_path)
    assert (done.delivered, done.refused) == (6, 0)
    assert not (tmp_path / REJECTED_FILE).exists()
    assert replay_spool(store, tmp_path).delivered == 0
    runs = mlflow_read.runs(store, "exp")
    assert mlflow_read.points(store, runs["s"], "m") == [(step, float(step)) for step in (1, 2, 3, 4)]
    assert mlflow_read.points(store, runs["s/1"], "m") == [(1, 1.0)]
    assert (runs["s"].info.status, runs["s"].info.end_time) == ("KILLED", 7000)


def test_what_comes_late_leaves_alone_what_came_after_it(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace
) -> None:
    writer = RunWriter(store, "exp", tmp_path, flush_s=0.05)
    writer.put(make_run(), point("s", 1, 5.0), run_ops.status("s", "FINISHED", time=9000))
    writer.close(30)
    late = [point("s", 1, 6.0), run_ops.status("s", "RUNNING", time=3), run_ops.status("s", "KILLED", time=4)]
    run_ops.Spool(tmp_path / REJECTED_FILE).append({"experiment": "exp", **op} for op in late)
    assert replay_spool(store, tmp_path).refused == 0
    run = mlflow_read.runs(store, "exp")["s"]
    assert mlflow_read.points(store, run, "m") == [(1, 5.0)]
    assert (run.info.status, run.info.end_time) == ("FINISHED", 9000)


def test_a_store_that_takes_no_file_holds_up_nothing_of_a_replay(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace
) -> None:
    (tmp_path / "no-folder").touch()
    connect(store).create_experiment("exp", artifact_location=f"file://{tmp_path}/no-folder/artifacts")
    figure = tmp_path / "figure.png"
    figure.write_bytes(b"png")
    ops = [make_run(), run_ops.artifact("s", figure), point("s", 1), run_ops.status("s", "FINISHED", time=9)]
    run_ops.Spool(tmp_path / SPOOL_FILE).append({"experiment": "exp", **op} for op in ops)
    done = replay_spool(store, tmp_path)
    assert (done.delivered, done.refused) == (3, 1)
    assert "Not a directory" in done.reason
    run = mlflow_read.runs(store, "exp")["s"]
    assert (run.info.status, mlflow_read.points(store, run, "m")) == ("FINISHED", [(1, 1.0)])


def test_a_disk_that_takes_no_refused_entry_ends_no_tracking(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / REJECTED_FILE).mkdir()
    writer = RunWriter(store, "exp", tmp_path, flush_s=0.05)
    writer.put(make_run(), point("unheard-of", 1))
    time.sleep(0.5)
    writer.put(point("s", 1))
    assert writer.close(30) is None
    assert mlflow_read.points(store, mlflow_read.runs(store, "exp")["s"], "m") == [(1, 1.0)]
    assert any("refused entries are lost: cannot write" in record.getMessage() for record in caplog.records)


def test_a_spool_that_lost_a_block_is_read_around_it(tmp_path: Path) -> None:
    spool = run_ops.Spool(tmp_path / SPOOL_FILE)
    spool.append([point("s", 1)])
    with spool.path.open("ab") as file:
        file.write(b"\0" * 100 + b"\n")  # as a file system may leave it after a power cut
    spool.append([point("s", 2)])
    assert [op["points"][0][3] for op in spool] == [1, 2]


def test_a_killed_process_loses_nothing(tmp_path: Path, store: str, mlflow_read: SimpleNamespace) -> None:
    writer = RunWriter(store, "exp", tmp_path, flush_s=60)  # its thread has not woken up when it is killed
    writer.put(make_run(), point("s", 1), run_ops.status("s", "FINISHED", time=9000))
    again = RunWriter(store, "exp", tmp_path, flush_s=0.05)
    again.put(point("s", 2))
    assert again.close(30) is None
    run = mlflow_read.runs(store, "exp")["s"]
    assert (run.info.status, mlflow_read.points(store, run, "m")) == ("FINISHED", [(1, 1.0), (2, 2.0)])


def test_what_a_full_disk_does_not_take_waits_in_memory(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    journal = tmp_path / SPOOL_FILE
    writer = RunWriter(NOBODY, "exp", tmp_path, flush_s=0.05, retry_s=0.1)
    writer.put(make_run(), point("s", 1))
    whole = journal.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, before[1]))  # a part of a line fits
    try:
        writer.put(point("s", 2))
        writer.put(point("s", 3))
        time.sleep(0.3)
        assert journal.read_bytes() == whole
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    writer.put(point("s", 4))
    assert writer.close(1) == journal
    said = [record.getMessage() for record in caplog.records if "waits in memory" in record.getMessage()]
    assert len(said) == 1
    assert replay_spool(store, tmp_path).refused == 0
    run = mlflow_read.runs(store, "exp")["s"]
    assert mlflow_read.points(store, run, "m") == [(step, float(step)) for step in (1, 2, 3, 4)]


def test_replay_needs_a_spool_and_a_server(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no spool file"):
        replay_spool(NOBODY, tmp_path / "absent.jsonl")
    run_ops.Spool(tmp_path / SPOOL_FILE).append([{"experiment": "exp", **make_run()}])
    with pytest.raises(UserError, match="connection refused"):
        replay_spool(NOBODY, tmp_path)
    assert (tmp_path / SPOOL_FILE).exists()


def test_what_a_former_process_spooled_comes_first(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace
) -> None:
    former = RunWriter(NOBODY, "exp", tmp_path, flush_s=0.05)
    former.put(make_run(), point("s", 1), run_ops.status("s", "FINISHED", time=2))
    former.close(10)
    with (tmp_path / SPOOL_FILE).open("a") as file:
        file.write('{"op": "metrics", "run": "s", "poi')  # killed while it wrote
    writer = RunWriter(store, "exp", tmp_path, flush_s=0.05)
    writer.put(run_ops.status("s", "RUNNING", time=3), point("s", 2))
    assert writer.close(30) is None
    assert not (tmp_path / SPOOL_FILE).exists()
    run = mlflow_read.runs(store, "exp")["s"]
    assert run.info.status == "RUNNING"  # set after the spooled FINISHED, not before
    assert mlflow_read.points(store, run, "m") == [(1, 1.0), (2, 2.0)]
