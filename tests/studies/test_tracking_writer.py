"""The background writer: delivery, batches, and a server that is away or refuses."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode
from mlflow.tracking import MlflowClient
from tracked import make_run, point

from tdmpc_ray.studies.tracking import ops as run_ops
from tdmpc_ray.studies.tracking.client import connect
from tdmpc_ray.studies.tracking.sender import is_rejection
from tdmpc_ray.studies.tracking.spooled import REJECTED_FILE, replay_spool
from tdmpc_ray.studies.tracking.writer import RunWriter


def test_large_batches_are_split(store: str, tmp_path: Path, mlflow_read: SimpleNamespace) -> None:
    writer = RunWriter(store, "exp", tmp_path / "spool", flush_s=0.05)
    writer.put(make_run(params={f"p{i}": str(i) for i in range(150)}))
    writer.put(run_ops.tags("s", {f"t{i}": str(i) for i in range(150)}))
    writer.put(run_ops.metrics("s", {f"m{i}": float(i) for i in range(1500)}, step=3, time=5))
    writer.put(*(point("s", step) for step in range(2500)))
    assert writer.close(60) is None
    run = mlflow_read.runs(store, "exp")["s"]
    assert len(run.data.params) == 150
    assert run.data.tags["t149"] == "149"
    assert run.data.metrics["m1499"] == 1499.0
    assert mlflow_read.points(store, run, "m") == [(step, float(step)) for step in range(2500)]


def test_children_hang_under_their_parent(store: str, tmp_path: Path, mlflow_read: SimpleNamespace) -> None:
    writer = RunWriter(store, "exp", tmp_path / "spool", flush_s=0.05)
    writer.put(make_run("s"), make_run("s/1", parent="s"), run_ops.status("s/1", "FAILED", time=77_000))
    writer.close(30)
    runs = mlflow_read.runs(store, "exp")
    assert runs["s/1"].data.tags["mlflow.parentRunId"] == runs["s"].info.run_id == writer.run_ids["s"]
    assert (runs["s/1"].info.status, runs["s/1"].info.end_time) == ("FAILED", 77_000)
    assert runs["s"].info.status == "RUNNING"


def test_a_refused_entry_does_not_block_the_rest(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace
) -> None:
    writer = RunWriter(store, "exp", tmp_path, flush_s=0.05)
    writer.put(make_run(params={"lr": "1"}), make_run(params={"lr": "2"}))  # parameters are immutable
    writer.put(run_ops.artifact("s", tmp_path / "absent.png"), point("unheard-of", 1), point("s", 1))
    assert writer.close(30) is None
    assert writer.rejected == 3
    refused = [json.loads(line) for line in (tmp_path / REJECTED_FILE).read_text().splitlines()]
    assert [op["op"] for op in refused] == ["create", "artifact", "metrics"]
    run = mlflow_read.runs(store, "exp")["s"]
    assert run.data.params == {"lr": "1"}
    assert mlflow_read.points(store, run, "m") == [(1, 1.0)]


def test_what_mlflow_cannot_store_does_not_hold_up_the_rest(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_batch = MlflowClient.log_batch

    def fail(client: MlflowClient, run_id: str, **values: Any) -> None:
        if any(metric.step == 2 for metric in values.get("metrics", ())):
            raise MlflowException("value too long", error_code=ErrorCode.Value("BAD_REQUEST"))
        log_batch(client, run_id, **values)

    monkeypatch.setattr(MlflowClient, "log_batch", fail)
    writer = RunWriter(store, "exp", tmp_path, flush_s=0.05, retry_s=0.01)
    writer.put(make_run(), make_run("other"), *(point("s", step) for step in range(1, 4)), point("other", 1))
    time.sleep(3)
    assert writer.close(30) is None
    runs = mlflow_read.runs(store, "exp")
    assert mlflow_read.points(store, runs["other"], "m") == [(1, 1.0)]
    assert mlflow_read.points(store, runs["s"], "m") == [(1, 1.0), (3, 3.0)]
    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    assert replay_spool(store, tmp_path).delivered == 1
    assert len(mlflow_read.points(store, runs["s"], "m")) == 3


def test_a_create_whose_answer_was_lost_makes_no_second_run(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, calls = MlflowClient.create_run, []

    def lose(client: MlflowClient, *args: Any, **values: Any) -> Any:
        made = create(client, *args, **values)
        calls.append(made)
        if len(calls) == 1:
            create(client, *args, **values)  # the server was slower still with another one
            raise ConnectionError("timed out")
        return made

    monkeypatch.setattr(MlflowClient, "create_run", lose)
    writer = RunWriter(store, "exp", tmp_path, flush_s=0.05, retry_s=0.01)
    writer.put(make_run(), point("s", 1), run_ops.status("s", "FINISHED", time=9000))
    time.sleep(1)
    assert writer.close(30) is None
    client = connect(store)
    [run] = client.search_runs([client.get_experiment_by_name("exp").experiment_id])
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"m": 1.0})


def test_a_name_is_as_long_as_databases_take(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace
) -> None:
    writer = RunWriter(store, "exp", tmp_path, flush_s=0.05)
    writer.put(make_run("s", name="n" * 400))
    assert writer.close(30) is None
    assert set(mlflow_read.runs(store, "exp")) == {"n" * 250}


def test_a_server_that_never_answers_does_not_hold_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        writer = RunWriter(f"http://127.0.0.1:{silent.getsockname()[1]}", "exp", tmp_path, flush_s=0.05)
        writer.put(make_run(), point("s", 1))
        time.sleep(0.5)  # the thread waits in its request now
        writer.put(point("s", 2))
        thread = writer._thread
        spool = writer.close(1.0)
        assert thread is not None
        assert thread.is_alive()  # in its request still
    thread.join(30)
    assert not thread.is_alive()
    assert [r for r in caplog.records if r.name == "tdmpc_ray.tracking"] == []  # nor is it heard of later
    assert spool is not None
    assert [op["op"] for op in run_ops.Spool(spool)] == ["create", "metrics", "metrics"]


def test_an_outage_in_the_middle_loses_and_doubles_nothing(
    server: Any, tmp_path: Path, mlflow_read: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    writer = RunWriter(server.uri, "outage", tmp_path, flush_s=0.05, retry_s=0.3)
    writer.put(make_run())
    for step in range(20):
        writer.put(point("s", step))
        time.sleep(0.02)
    server.stop()
    for step in range(20, 40):
        writer.put(point("s", step))  # returns, or the server would not come back
        time.sleep(0.02)
    assert writer.spool is not None
    server.start()
    for step in range(40, 60):
        writer.put(point("s", step))
        time.sleep(0.02)
    assert writer.close(30) is None
    run = mlflow_read.runs(server.uri, "outage")["s"]
    assert mlflow_read.points(server.uri, run, "m") == [(step, float(step)) for step in range(60)]
    messages = [record.getMessage() for record in caplog.records if record.name == "tdmpc_ray.tracking"]
    assert [message.split("(")[0].strip() for message in messages] == [
        "MLflow does not answer",
        "MLflow answers again: delivering what has waited",
    ]


def test_joined_operations_keep_each_run_in_order() -> None:
    ops = [
        point("a", 1),
        point("b", 1),
        point("a", 2),
        run_ops.status("a", "FINISHED", time=1),
        point("a", 3),
    ]
    joined = run_ops.coalesce(ops)
    assert [(op["run"], op["op"], len(op.get("points", []))) for op in joined] == [
        ("a", "metrics", 2),
        ("b", "metrics", 1),
        ("a", "status", 0),
        ("a", "metrics", 1),
    ]
    assert len(ops[0]["points"]) == 1  # the given operations are as before


@pytest.mark.parametrize(
    ("code", "rejected"),
    [("INVALID_PARAMETER_VALUE", True), ("RESOURCE_DOES_NOT_EXIST", True)]
    + [(code, False) for code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "PERMISSION_DENIED")],
)
def test_only_a_verdict_on_the_entry_is_a_rejection(code: str, rejected: bool) -> None:
    assert is_rejection(MlflowException("x", error_code=ErrorCode.Value(code))) is rejected
    assert not is_rejection(ConnectionError())


def test_an_artifact_store_that_fails_does_not_hold_up_metrics(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(store).create_experiment("exp", artifact_location="s3://bucket/x")  # and there is no boto3
    file = tmp_path / "study.yaml"
    file.touch()
    writer = RunWriter(store, "exp", tmp_path / "spool", flush_s=0.05)
    writer.put(
        make_run(), run_ops.artifact("s", file), point("s", 1), run_ops.status("s", "FINISHED", time=9)
    )
    assert writer.close(30) is None
    run = mlflow_read.runs(store, "exp")["s"]
    assert run.info.status == "FINISHED"
    assert mlflow_read.points(store, run, "m") == [(1, 1.0)]
    [refused] = run_ops.Spool(tmp_path / "spool" / REJECTED_FILE)
    assert (refused["op"], refused["path"]) == ("artifact", str(file))


def test_a_bad_point_does_not_take_its_batch_along(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace
) -> None:
    writer = RunWriter(store, "exp", tmp_path / "spool", flush_s=0.05)
    bad = run_ops.metrics("s", {"no such (name)": 1.0}, step=5, time=5)
    writer.put(make_run(), *(point("s", step) for step in range(20)), bad, point("s", 20))
    assert writer.close(30) is None
    run = mlflow_read.runs(store, "exp")["s"]
    assert mlflow_read.points(store, run, "m") == [(step, float(step)) for step in range(21)]
    [refused] = run_ops.Spool(tmp_path / "spool" / REJECTED_FILE)
    assert refused["points"] == bad["points"]
