"""`tdmpc-ray serve`: real Ray Serve in a process of its own, asked by several clients at once."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from agents import random_checkpoint
from conftest import free_port
from driver import Driver

from tdmpc_ray import cli
from tdmpc_ray.rllib.evaluation.episodes import LoadedAgent
from tdmpc_ray.rllib.evaluation.of_checkpoints import load_agent

PAIR = "reacher-easy+walker-walk"
TOKEN = "let-me-in"
SIZES = {"reacher-easy": (6, 2), "walker-walk": (24, 6)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(
        tmp_path_factory.mktemp("agent"), PAIR, {"planner.num_samples": 64, "planner.iterations": 3}
    )


class Server:
    """A running `tdmpc-ray serve`."""

    def __init__(self, folder: Path, *args: str, token: str = "") -> None:
        self.port, self.token = free_port(), token
        command = ("-m", "tdmpc_ray.cli", "serve", *args, "--port", str(self.port))
        self.driver = Driver(folder, *command, TDMPC_RAY_SERVE_TOKEN=token)
        self.driver.wait_for(lambda: "\nserving " in self.driver.log.read_text(), 300)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            headers.setdefault("authorization", f"Bearer {self.token}")
        text = body if isinstance(body, str) or body is None else json.dumps(body)
        connection.request(method, path, text, {"content-type": "application/json", **headers})
        answer = connection.getresponse()
        told = json.loads(answer.read())
        connection.close()
        return answer.status, told

    def act(self, session: str, obs: np.ndarray, **more: Any) -> dict[str, Any]:
        body = {"session": session, "obs": obs.tolist(), **more}
        status, told = self.ask("POST", "/v1/act", body, x_session_id=session)
        assert status == 200, told
        return told

    def end(self, signum: int) -> int:
        self.driver.process.send_signal(signum)
        status = self.driver.end(60)
        assert self.driver.left_behind() == []
        return status


@pytest.fixture(scope="module")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    server = Server(folder, str(checkpoint), "--batch-wait-ms", "50", "--idle-s", "600", token=TOKEN)
    yield server
    assert server.end(signal.SIGTERM) == 0
    assert server.driver.log.read_text().endswith("\nstopping\n")


def alone(checkpoint: Path) -> LoadedAgent:
    """The agent of `tdmpc-ray evaluate`, for one environment."""
    return load_agent(checkpoint, 0)


def test_sessions_in_parallel_act_as_if_each_were_alone(server: Server, checkpoint: Path) -> None:
    tasks = [*SIZES] * 4
    rng = np.random.default_rng(0)
    seen = [rng.normal(size=(6, SIZES[task][0])).astype(np.float32) for task in tasks]

    def client(number: int) -> list[dict[str, Any]]:
        task = {"task": tasks[number]}  # a session keeps it
        return [
            server.act(f"robot-{number}", obs, **(task if t == 0 else {}))
            for t, obs in enumerate(seen[number])
        ]

    with ThreadPoolExecutor(len(tasks)) as threads:
        told = list(threads.map(client, range(len(tasks))))
    for number, answers in enumerate(told):
        agent = alone(checkpoint)
        for t, (obs, answer) in enumerate(zip(seen[number], answers, strict=True)):
            action = agent.act(obs[None], np.array([t == 0]), tasks[number])[0]
            assert len(action) == SIZES[tasks[number]][1]
            np.testing.assert_allclose(answer["action"], action, atol=1e-3)
            assert answer["is_first"] == (t == 0)
    batches = [answer["batch"] for answers in told for answer in answers]
    assert max(batches) > 1
    assert max(batches) <= len(tasks)


def test_an_episode_begins_anew(server: Server) -> None:
    obs = np.linspace(-1, 1, 6)
    first = server.act("again", obs, task="reacher-easy")
    second = server.act("again", obs)
    assert (first["is_first"], second["is_first"]) == (True, False)
    assert second["action"] != first["action"]
    assert server.act("again", obs, is_first=True)["action"] == first["action"]
    body = {"session": "again", "obs": [0] * 24, "task": "walker-walk"}
    told = {"error": "a session keeps its task until is_first: true begins another episode"}
    assert server.ask("POST", "/v1/act", body) == (422, told)
    assert len(server.act("again", np.zeros(24), task="walker-walk", is_first=True)["action"]) == 6
    assert server.ask("DELETE", "/v1/sessions/again") == (200, {"ended": True})
    assert server.ask("DELETE", "/v1/sessions/again") == (200, {"ended": False})
    assert server.act("again", obs, task="reacher-easy")["is_first"]


def test_two_requests_of_a_session_are_answered_one_after_the_other(server: Server, checkpoint: Path) -> None:
    obs = np.linspace(-1, 1, 6).astype(np.float32)
    with ThreadPoolExecutor(4) as threads:
        told = list(threads.map(lambda _: server.act("busy", obs, task="reacher-easy"), range(4)))
    agent = alone(checkpoint)
    expected = [agent.act(obs[None], np.array([t == 0]), "reacher-easy")[0] for t in range(4)]
    got = sorted((answer["action"] for answer in told), key=lambda action: action[0])
    np.testing.assert_allclose(got, sorted(expected, key=lambda action: action[0]), atol=1e-3)
    assert sum(answer["is_first"] for answer in told) == 1
    assert {answer["batch"] for answer in told} == {1}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            {"session": "x", "obs": [0] * 5, "task": "reacher-easy"},
            "obs has 5 numbers, reacher-easy needs 6 numbers",
        ),
        (
            {"session": "x", "obs": [float("nan")] * 6, "task": "reacher-easy"},
            "obs holds NaN, or a number beyond",
        ),
        ({"session": "x", "obs": [1e39] * 6, "task": "reacher-easy"}, "obs holds NaN, or a number beyond"),
        (
            {"session": "x", "obs": ["a"] * 6, "task": "reacher-easy"},
            "obs holds something that is not a number",
        ),
        (
            {"session": "x", "obs": [0, [1]], "task": "reacher-easy"},
            "obs is a list of lists of different lengths",
        ),
        (
            {"session": "x", "obs": [0] * 6, "task": "reacher-hrad"},
            "unknown task 'reacher-hrad': did you mean",
        ),
        ({"session": "x", "obs": [0] * 6}, "say which task: this agent knows reacher-easy, walker-walk"),
        ({"session": "", "obs": [0] * 6}, "session: is empty"),
        ({"session": "ro/bot", "obs": [0] * 6}, "session: a name of letters, digits and any of"),
        ({"session": "rob\u00f6t", "obs": [0] * 6}, "session: a name of letters, digits and any of"),
        ({"session": "x"}, "obs: is missing"),
        (
            {"session": "x", "obs": [0], "first": True},
            "first: is not known; there are session, obs, is_first, task",
        ),
        ({"session": 5, "obs": [0] * 6}, "session: is not a string"),
        ({"session": "x", "obs": 5}, "obs: is not a list"),
        ({"session": "x", "obs": [0], "is_first": "perhaps"}, "is_first: is neither true nor false"),
        ("{", "the body is not JSON"),
        ("[1]", "the body must be a JSON object, sent with 'Content-Type: application/json'"),
    ],
)
def test_bad_input_is_one_clear_line(server: Server, body: Any, problem: str) -> None:
    status, told = server.ask("POST", "/v1/act", body)
    assert status == 422
    assert told["error"].startswith(problem)


def test_a_name_that_no_session_can_have_is_refused(server: Server) -> None:
    for name in ("ro%20bot", "a" * 201):
        status, told = server.ask("DELETE", f"/v1/sessions/{name}", None)
        assert status == 422
        assert told["error"].startswith(("session: a name of letters", "name: has more than 200 characters"))


def test_a_body_without_its_type_is_one_clear_line(server: Server) -> None:
    body = {"session": "x", "obs": [0] * 6}
    status, told = server.ask("POST", "/v1/act", body, content_type="application/x-www-form-urlencoded")
    assert status == 422
    assert told["error"].startswith("the body must be a JSON object, sent with")


def test_what_is_served_and_who_may_ask(server: Server, checkpoint: Path) -> None:
    assert server.ask("GET", "/healthz", authorization="none") == (200, {"status": "ok"})
    for method, path in (("GET", "/v1/model"), ("DELETE", "/v1/sessions/a")):
        status, told = server.ask(method, path, authorization="Bearer wrong")
        assert (status, told) == (401, {"error": "send the header Authorization: Bearer TOKEN"})
    status, told = server.ask("POST", "/v1/act", {"session": "a", "obs": []}, authorization="")
    assert status == 401
    assert server.ask("POST", "/v1/act", "{", authorization="")[0] == 401, "before what is wrong with it"
    assert server.ask("POST", "/v1/act", "[" * 11_000_000)[0] == 413
    assert server.ask("GET", "/docs")[0] == 404
    status, told = server.ask("GET", "/v1/model")
    assert status == 200
    assert told["model"] == checkpoint.name
    assert told["tasks"] == [
        {"task": task, "obs_shape": [obs], "action_dim": action} for task, (obs, action) in SIZES.items()
    ]
    assert told["action_bounds"] == [-1, 1]
    assert f"at http://127.0.0.1:{server.port}" in server.driver.log.read_text()


def test_a_killed_replica_is_replaced_and_sessions_plan_afresh(server: Server) -> None:
    obs = np.linspace(-1, 1, 6)
    first = server.act("survivor", obs, task="reacher-easy")
    assert not server.act("survivor", obs)["is_first"]
    (pid,) = server.driver.processes("ray::ServeReplica")
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 90
    body = {"session": "survivor", "obs": obs.tolist(), "task": "reacher-easy"}
    while True:
        assert time.monotonic() < deadline
        try:
            status, told = server.ask("POST", "/v1/act", body)
        except (OSError, ValueError):  # Serve's own errors are no JSON
            status = 0
        if status == 200:
            break
        time.sleep(0.5)
    assert told["is_first"]
    assert told["action"] == first["action"]


@pytest.mark.slow
def test_a_session_stays_with_its_replica(checkpoint: Path, tmp_path: Path) -> None:
    server = Server(tmp_path, str(checkpoint), "--replicas", "2", "--set", "planner.iterations=1")
    names, obs = [f"robot-{i}" for i in range(12)], np.linspace(-1, 1, 6)
    assert len(server.driver.processes("ray::ServeReplica")) == 2
    for t in range(3):
        for name in names:
            assert server.act(name, obs, task="reacher-easy")["is_first"] == (t == 0)
    ended = [server.ask("DELETE", f"/v1/sessions/{name}", x_session_id=name)[1]["ended"] for name in names]
    assert ended == [True] * len(names)
    for headers in ({}, {"x_session_id": "other"}):
        status, told = server.ask("POST", "/v1/act", {"session": "a", "obs": [0] * 6}, **headers)
        assert status == 422
        assert told["error"].startswith(
            "2 replicas serve: send the session's name in the header x-session-id"
        )
    assert server.end(signal.SIGINT) == 130


def test_what_is_refused_takes_no_place(server: Server) -> None:
    status, _ = server.ask("POST", "/v1/act", {"session": "refused", "obs": [0] * 5, "task": "reacher-easy"})
    assert status == 422
    assert server.ask("DELETE", "/v1/sessions/refused") == (200, {"ended": False})


def test_what_cannot_be_served_is_said_at_once(
    checkpoint: Path, store: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray.shutdown()  # as in a new process: another test's may be up
    with_store = ("--mlflow-uri", store, "--port", str(free_port()))
    for args, problem in (
        (["models:/nobody@champion", *with_store], "no model models:/nobody@champion at sqlite"),
        (["models:/nobody/1", *with_store], "no model models:/nobody/1 at sqlite"),
        (["models:/m-123", *with_store], "no model models:/m-123 at sqlite"),
        (["nowhere", *with_store], "no checkpoint at nowhere: there is no such folder"),
        ([str(checkpoint), *with_store, "--set", "planner.horizno=3"], "did you mean 'planner.horizon'?"),
        ([str(checkpoint), *with_store, "--num-gpus", "99"], "99 GPUs and this machine has"),
        ([str(checkpoint), "--host", "192.0.2.77"], "cannot listen at 192.0.2.77:8000"),
        ([str(checkpoint), *with_store], "TDMPC_RAY_SERVE_TOKEN must be of plain ASCII characters"),
    ):
        if "ASCII" in problem:
            monkeypatch.setenv("TDMPC_RAY_SERVE_TOKEN", "schlüssel")
        monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
        assert cli.main(["serve", *args]) == 2
        said = capsys.readouterr().err
        assert problem in said
        assert len(said.splitlines()) == 1
