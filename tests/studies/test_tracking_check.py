"""Checking MLflow's address at the start: fast, in one line, with what to do."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.tracking import client
from tdmpc_ray.studies.tracking.client import (
    absolute_uri,
    check_tracking,
    connect,
    write_private,
)


@pytest.fixture(params=[403])
def forbidding_server(request: pytest.FixtureRequest) -> Iterator[str]:
    refusing = request.param

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else refusing)
            self.end_headers()
            if refusing == 403:
                self.wfile.write(b"Invalid Host header - possible DNS rebinding attack detected")

        do_POST = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def refusal(uri: str, experiment: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        check_tracking(uri, experiment)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_nothing_listens() -> None:
    assert "connection refused" in refusal("http://127.0.0.1:9")


def test_a_server_that_never_answers() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert "no answer in time" in refusal(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_a_server_that_refuses_this_host_name(forbidding_server: str) -> None:
    message = refusal(forbidding_server)
    assert "403" in message
    assert "--allowed-hosts" in message


@pytest.mark.parametrize("forbidding_server", [401], indirect=True)
def test_a_server_that_wants_credentials(forbidding_server: str) -> None:
    message = refusal(forbidding_server)
    assert "401" in message
    assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN" in message


def test_databricks_is_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def client_of(uri: str) -> Any:
        asked.append(uri)
        raise ValueError("no credentials")

    monkeypatch.setattr(client, "connect", client_of)
    for uri in ("databricks", "databricks://profile"):
        for create in (True, False):
            with pytest.raises(UserError, match=f"MLflow at {uri} cannot be used .no cred.*: set DATABR"):
                client.check_tracking(uri, create=create)
    assert asked == ["databricks"] * 2 + ["databricks://profile"] * 2


@pytest.mark.parametrize(
    "uri", ["", "mlruns", "file:///tmp/mlruns", "ftp://host/x", "sqlite://", "sqlite:////"]
)
def test_what_is_no_address(uri: str) -> None:
    assert "sqlite:///" in refusal(uri)


def test_a_folder_that_is_missing() -> None:
    assert "/absent" in refusal("sqlite:////absent/mlflow.db")


def test_passwords_are_not_shown() -> None:
    assert "hunter2" not in refusal("http://me:hunter2@127.0.0.1:9")


def test_a_deleted_experiment_is_refused(store: str) -> None:
    mlflow = connect(store)
    mlflow.delete_experiment(mlflow.create_experiment("gone"))
    mlflow.create_experiment("there")
    assert "mlflow experiments restore" in refusal(store, "gone")
    check_tracking(store, "there")
    check_tracking(store, "not yet")


def test_a_server_that_answers(server: Any) -> None:
    before = dict(os.environ)
    check_tracking(server.uri)
    assert dict(os.environ) == before


def test_a_new_database_is_made_quietly(first_use: SimpleNamespace) -> None:
    assert first_use.output == ""
    assert {path.name for path in first_use.folder.iterdir()} <= {"mlflow.db", "mlartifacts"}
    first = connect(f"sqlite:///{first_use.folder}/mlflow.db").get_experiment_by_name("first")
    assert first.artifact_location == (first_use.folder / "mlartifacts").as_uri()


def test_a_sqlite_address_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert absolute_uri("sqlite+pysqlite:///x.db?mode=ro") == f"sqlite+pysqlite:///{tmp_path}/x.db?mode=ro"
    assert absolute_uri("SQLite:///x.db") == f"SQLite:///{tmp_path}/x.db"
    assert absolute_uri("http://host:5000") == "http://host:5000"


def test_a_database_by_its_driver_is_the_same_file(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_tracking("sqlite+pysqlite:///x.db", "exp", create=False)
    assert list(tmp_path.iterdir()) == []
    assert "/absent is missing" in refusal("sqlite+pysqlite:////absent/x.db")
    assert "names no database file" in refusal("sqlite+pysqlite://:key@/x.db")
    shutil.copy(empty_store, tmp_path / "x.db")
    check_tracking("sqlite+pysqlite:///x.db", "exp")
    experiment = connect(f"sqlite:///{tmp_path}/x.db").get_experiment_by_name("exp")
    assert experiment.artifact_location == (tmp_path / "mlartifacts").as_uri()


def test_files_and_names_that_mlflow_cannot_use(store: str, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database\n" * 100)
    assert "file is not a database" in refusal(f"sqlite:///{tmp_path}/text.db")
    assert "'http://[::1' is not an address" in refusal("http://[::1")
    assert "exceeds the maximum length" in refusal(store, "x" * 600)


def test_two_commands_at_once_in_a_new_folder(tmp_path: Path) -> None:
    code = "from tdmpc_ray.studies.tracking.client import *; check_tracking(DEFAULT_URI, 'exp')"
    both = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=120)[1] for process in both] == ["", ""]
    assert [process.returncode for process in both] == [0, 0]


def test_a_file_with_secrets_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "tracking.json"
    write_private(path, "before")
    assert path.stat().st_mode & 0o777 == 0o600
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))  # as a full disk
    try:
        with pytest.raises(OSError, match="too large"):
            write_private(path, "x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_text() == "before"


def test_the_lock_of_a_database_lies_beside_it(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[Path] = []

    class Lock(FileLock):
        def __init__(self, path: Path, **options: Any) -> None:
            locked.append(path)
            super().__init__(path, **options)

    monkeypatch.setattr(client, "FileLock", Lock)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    client.check_tracking(f"sqlite:///{tmp_path}/mlflow.db")
    assert locked == [tmp_path / ".mlflow.db.lock"]
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
