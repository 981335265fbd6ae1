"""What is asked of a cluster, and what is sent along, without one."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from aiohttp import web
from job_studies import write_study
from ports import free_ports

from tdmpc_ray.cli import main
from tdmpc_ray.cli.cluster import _submitted
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.load import load_study
from tdmpc_ray.studies.run import jobs as jobs_module
from tdmpc_ray.studies.run import sending
from tdmpc_ray.studies.run.jobs import Jobs, NoAnswer
from tdmpc_ray.studies.run.sending import stage, sum_up
from tdmpc_ray.studies.words import JOB_ADDRESS, resume_command


class NoRay:
    """A job server's client that keeps what it is asked to start."""

    def __init__(self, **metadata: str) -> None:
        self.metadata, self.started = metadata, []

    def get_job_info(self, job_id: str) -> SimpleNamespace:
        if not self.metadata:
            raise RuntimeError("404: job does not exist")
        return SimpleNamespace(
            status="STOPPED", metadata=self.metadata, message="", start_time=None, end_time=None
        )

    def submit_job(self, **job: Any) -> str:
        self.started.append(job)
        return str(job["submission_id"])


def jobs_of(client: Any) -> Jobs:
    jobs = Jobs.__new__(Jobs)
    jobs.address, jobs._client, jobs._say = "http://head:8265", client, print
    return jobs


def test_what_names_a_job_is_no_part_of_a_shells_line() -> None:
    evil = "x; touch /tmp/y $(id)"
    client = NoRay(study="x", out=evil, with_code="", beside="[]")
    jobs_of(client).resume("x-20260101-000000-abcdef")
    [job] = client.started
    assert job["entrypoint"].endswith(f" resume '{evil}'")
    jobs_of(client).resume("x-20260101-000000-abcdef", mlflow_uri="http://user:secret@m:5000")
    entrypoint = client.started[1]["entrypoint"]
    assert entrypoint.endswith(f" resume '{evil}' --mlflow-uri \"$MLFLOW_TRACKING_URI\"")
    assert "secret" not in str(client.started[1]["metadata"]) + entrypoint
    assert job["runtime_env"]["env_vars"][JOB_ADDRESS] == "http://head:8265"
    jobs_of(client).resume("x-20260101-000000-abcdef-sync-abcdef", command="sync")
    assert client.started[2]["entrypoint"].endswith(f" sync '{evil}'")
    with pytest.raises(UserError, match="has no job"):
        jobs_of(NoRay()).resume(f"{evil}-20260101-000000-abcdef")


def test_an_address_of_mlflow_that_is_given_wins_over_the_studys_own(tmp_path: Path) -> None:
    client, file = NoRay(), write_study(tmp_path, {}, 100, tracking={"uri": "sqlite:///own.db"})
    jobs_of(client).submit(load_study(file), file, mlflow_uri="http://user:secret@m:5000")
    entrypoint = client.started[0]["entrypoint"]
    assert entrypoint.endswith(' --mlflow-uri "$MLFLOW_TRACKING_URI"')
    assert "secret" not in str(client.started[0]["metadata"]) + entrypoint


def test_what_a_job_prints_can_be_run_where_it_was_submitted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(JOB_ADDRESS, "http://head:8265")
    out = Path("/results/x-20260101-000000-abcdef")
    assert resume_command(out) == f"tdmpc-ray resume {out.name} --address http://head:8265"
    monkeypatch.delenv(JOB_ADDRESS)
    assert resume_command(out).endswith(f"tdmpc-ray resume {out}")
    _submitted(jobs_of(NoRay()), "x-1", wait=False)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "follow it with: tdmpc-ray logs -f x-1 --address http://head:8265",
        "stop it with: tdmpc-ray stop x-1 --address http://head:8265",
    ]


def test_a_cluster_brings_mlflow_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = NoRay()
    monkeypatch.setattr("tdmpc_ray.cli.cluster._jobs", lambda address: jobs_of(client))
    monkeypatch.setattr("tdmpc_ray.cli.cluster.follow", lambda jobs, job_id: 1)
    lost = "x-20260101-000000-abcdef"  # to a head that was started anew
    assert main(["sync", lost, "--address", "http://head:8265", "--mlflow-uri", "http://m:5000"]) == 1
    [job] = client.started
    assert job["entrypoint"].endswith(f' sync {lost} --mlflow-uri "$MLFLOW_TRACKING_URI"')
    assert job["metadata"]["out"] == lost
    assert capsys.readouterr().out.startswith(f"submitted: {lost}-sync-")


def test_what_cannot_go_along_with_a_job(tmp_path: Path) -> None:
    for name in ("a", "b", "staged"):
        (tmp_path / name).mkdir()
    for name in ("a/s.yaml", "b/s.yaml"):
        (tmp_path / name).write_text(name)
    with pytest.raises(UserError, match=r"b/s.yaml: something else of this name goes along"):
        stage(tmp_path / "staged", [tmp_path / "a/s.yaml", tmp_path / "b/s.yaml"], False)
    with pytest.raises(UserError, match="cannot send /dev/zero: it is a device, a pipe or a socket"):
        stage(tmp_path / "staged", [Path("/dev/zero")], False)
    with pytest.raises(UserError, match=r"cannot send .*a/gone: No such file"):
        stage(tmp_path / "staged", [tmp_path / "a/gone"], False)


class CutLog(NoRay):
    """A job whose log comes in pieces over connections that are cut."""

    def __init__(self, *tries: list[Any]) -> None:
        super().__init__(study="x")
        self.tries, self.num_tries = tries, 0

    def get_job_info(self, job_id: str) -> SimpleNamespace:
        info = super().get_job_info(job_id)
        info.status = "FAILED" if self.num_tries >= len(self.tries) - 1 else "RUNNING"
        return info

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        self.num_tries += 1
        for piece in self.tries[min(self.num_tries, len(self.tries)) - 1]:
            if isinstance(piece, Exception):
                raise piece
            yield piece


def test_a_log_goes_on_where_the_connection_was_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs_module, "_POLL_S", 0.0)
    cut = RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
    client = CutLog(
        ["a\nb\n", cut],
        [ConnectionResetError()],
        ["a\n", "b\nc", RuntimeError("Request failed with status code 502: Bad Gateway")],
        ["a\nb\ncc\n"],  # closed in peace by a proxy
        ["a\nb\nc", "c\nd\n"],
    )
    written: list[str] = []
    job = jobs_of(client).follow("x-1", written.append)
    assert "".join(written) == "a\nb\ncc\nd\n"
    assert (job.status, job.exit_status, client.num_tries) == ("FAILED", 1, 5)
    lost = "lost the connection to http://head:8265: trying again, x-1 goes on\n"
    assert capsys.readouterr().out == lost * 2, "once each time it is lost"

    monkeypatch.setattr(jobs_module, "_GIVE_UP_S", 0.0)
    with pytest.raises(NoAnswer, match="the connection to http://head:8265 was cut"):
        jobs_of(CutLog([cut], [cut], [cut])).follow("x-1", written.append)


def test_a_closed_pipe_is_no_lost_connection() -> None:
    def write(text: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        jobs_of(CutLog(["a"], ["a"])).follow("x-1", write)


def test_what_goes_along_is_summed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = tmp_path / "lab"
    for name in (
        ".git/pack",
        "env/pyvenv.cfg",
        "results/run/big",
        "code/results/__init__.py",
        "a.py",
        "b.pyc",
    ):
        (lab / name).parent.mkdir(parents=True, exist_ok=True)
        (lab / name).write_bytes(b"x" * 1000)
    (lab / "data.bin").write_bytes(b"x" * 300_000)
    (tmp_path / "staged").mkdir()
    said = stage(tmp_path / "staged", [lab], False)
    assert said.startswith(f"sending 3 files of 0.3 MB (the largest: {lab}/data.bin 0.3 MB, {lab}/")
    staged = {path.relative_to(tmp_path / "staged/lab") for path in (tmp_path / "staged").rglob("*")}
    assert {str(path) for path in staged if path.suffix} == {"a.py", "data.bin", "code/results/__init__.py"}
    monkeypatch.setattr("ray._private.runtime_env.packaging.GCS_STORAGE_MAX_SIZE", 200_000)
    (tmp_path / "again").mkdir()
    with pytest.raises(
        UserError, match=r"cannot send 3 files of .*data\.bin 0\.3 MB.*: Ray takes 0 MB at most"
    ):
        stage(tmp_path / "again", [lab], False)
    assert list((tmp_path / "again").iterdir()) == []


def test_linked_folders_are_summed_up_as_they_are_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, staged = tmp_path / "lab", tmp_path / "staged"
    for folder in (lab / "code", tmp_path / "big/deep", staged):
        folder.mkdir(parents=True)
    (lab / "code/a.py").write_text("abc")
    (tmp_path / "big/deep/data.bin").write_bytes(b"x" * 300_000)
    (tmp_path / "big/deep/up").symlink_to(tmp_path / "big")  # a loop by another way
    (lab / "data").symlink_to(tmp_path / "big")
    (lab / "again").symlink_to(tmp_path / "big/deep")
    (lab / "code/back").symlink_to(lab)
    (lab / "code/.#a.py").symlink_to("me@host.1:2")  # an editor's lock
    (lab / "code/self").symlink_to("self")
    os.mkfifo(lab / "code/pipe")
    names = {"code/a.py", "data/deep/data.bin", "again/data.bin"}
    sizes = sum_up([lab])
    assert {str(path.relative_to(lab)) for path in sizes} == names
    assert sum(sizes.values()) == 600_003
    monkeypatch.setattr("ray._private.runtime_env.packaging.GCS_STORAGE_MAX_SIZE", 500_000)
    with pytest.raises(UserError, match=r"cannot send 3 files of 0\.6 MB"):
        stage(staged, [lab], False)
    monkeypatch.undo()
    assert stage(staged, [lab], False).startswith("sending 3 files of 0.6 MB")
    copied = {str(path.relative_to(staged / "lab")) for path in staged.rglob("*") if path.is_file()}
    assert copied == names
    assert not any(path.is_symlink() for path in staged.rglob("*"))


def test_this_package_goes_along_whole() -> None:
    package = Path(sending.__file__).parents[2]
    sent = {path.relative_to(package) for path in sum_up([package])}
    assert Path("studies/results/compare.py") in sent
    assert all(path.relative_to(package) in sent for path in package.rglob("*.py"))


class CuttingServer:
    """What a job server and a proxy before it answer about a job; each log is cut but the last."""

    def __init__(self) -> None:
        self.logs = 0

    async def version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": ray.__version__, "ray_commit": ""})

    async def job(self, request: web.Request) -> web.Response:
        if self.logs == 2:
            self.logs += 1
            raise web.HTTPBadGateway
        status = "SUCCEEDED" if self.logs > 3 else "RUNNING"
        return web.json_response(
            {"type": "SUBMISSION", "entrypoint": "", "status": status, "submission_id": "x-1", "metadata": {}}
        )

    async def log(self, request: web.Request) -> web.WebSocketResponse:
        self.logs += 1
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("one\n")
        if self.logs == 1:
            assert request.transport is not None
            request.transport.abort()
        else:
            await socket.send_str("two\n")
            await socket.close()
        return socket


@pytest.mark.filterwarnings("ignore:ssl=None")
def test_rays_own_client_over_a_connection_that_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "_POLL_S", 0.0)
    server, started, loop = CuttingServer(), threading.Event(), asyncio.new_event_loop()
    app, (port,) = web.Application(), free_ports(1)
    app.router.add_get("/api/version", server.version)
    app.router.add_get("/api/jobs/x-1", server.job)
    app.router.add_get("/api/jobs/x-1/logs/tail", server.log)

    runner = web.AppRunner(app)

    async def serve() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        started.set()

    thread = threading.Thread(target=lambda: (loop.run_until_complete(serve()), loop.run_forever()))
    thread.start()
    try:
        assert started.wait(30)
        written: list[str] = []
        job = Jobs(f"http://127.0.0.1:{port}").follow("x-1", written.append)
        assert ("".join(written), job.exit_status) == ("one\ntwo\n", 0)
        assert server.logs > 3
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
