"""The link between two hosts is cut and mended: two network namespaces of this machine, a node in each.

    .venv/bin/pytest -m slow tests/cluster -s        # as root, or where namespaces are allowed

Nothing is told that the link is gone: connections stay open and silent, as with a pulled plug.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HEAD, OTHER = "10.199.77.1", "10.199.77.2"
PORT = 6479
# A node is given up after five questions of a second without an answer.
NOTICE = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "1000"}
NOTICE["RAY_health_check_failure_threshold"] = "5"
NOTICED_S = 30  # Ray's noticing, and what follows from it


def ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True)


class Hosts:
    """Two namespaces with a cable between them, and a Ray node in each."""

    def __init__(self, folder: Path) -> None:
        self.names = [f"tdmpc-{os.getpid()}-{end}" for end in "ab"]
        self.cables = [f"tr{os.getpid() % 100000}{end}" for end in "ab"]
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []

    def lay_cable(self) -> None:
        for name in self.names:
            ip("netns", "add", name)
            ip("netns", "exec", name, "ip", "link", "set", "lo", "up")
        ip("link", "add", self.cables[0], "type", "veth", "peer", "name", self.cables[1])
        for name, cable, address in zip(self.names, self.cables, (HEAD, OTHER), strict=True):
            ip("link", "set", cable, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", cable)
            ip("-n", name, "link", "set", cable, "up")

    def start(self, host: int, log: str, *command: str) -> Path:
        """Run a command on a host; returns the file with what it prints."""
        ours = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        file = self.folder / log
        with file.open("ab") as out:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.names[host], *command],
                stdout=out,
                stderr=out,
                env={**ours, **NOTICE, "RAY_AUTH_MODE": "disabled"},
                start_new_session=True,
            )
        self.started.append(process)
        return file

    def start_node(self, host: int) -> None:
        """As a service manager would: a node that leaves is started again."""
        where = ["--head", f"--port={PORT}"] if host == 0 else [f"--address={HEAD}:{PORT}"]
        options = [f"--node-ip-address={(HEAD, OTHER)[host]}", "--num-cpus=1", "--block"]
        options += ["--object-store-memory=100000000", '--resources={"rollout": 1}']
        options += ["--include-dashboard=false"] if host == 0 else []
        ray_start = " ".join([shutil.which("ray", path=Path(sys.executable).parent) or "ray", "start"])
        quoted = " ".join(f"'{option}'" for option in [*where, *options])
        self.start(host, f"node{host}.log", "sh", "-c", f"while true; do {ray_start} {quoted}; sleep 1; done")

    def set_link(self, state: str) -> None:
        ip("-n", self.names[0], "link", "set", self.cables[0], state)

    def clear(self) -> None:
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for name in self.names:
            found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
            for pid in found.stdout.split():  # Ray's, which have sessions of their own
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    if shutil.which("ip") is None:
        pytest.skip("no `ip` (iproute2) to make network namespaces with")
    hosts = Hosts(tmp_path)
    try:
        hosts.lay_cable()
    except subprocess.CalledProcessError as error:
        hosts.clear()
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        yield hosts
    finally:
        hosts.clear()


def wait_for(file: Path, condition: Callable[[list[dict[str, Any]]], bool], seconds: float) -> list[Any]:
    """What the training has printed, once `condition` holds."""
    deadline = time.monotonic() + seconds
    while True:
        text = file.read_text()
        lines = [
            json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")
        ]
        if condition(lines):
            return lines
        assert time.monotonic() < deadline, text[-2000:]
        time.sleep(0.5)


@pytest.mark.parametrize("mode", ["at-once", "in-turns"])
def test_training_goes_on_with_the_rest_and_takes_the_host_back(mode: str, hosts: Hosts) -> None:
    hosts.start_node(0)
    time.sleep(8)
    hosts.start_node(1)
    script = str(Path(__file__).with_name("training.py"))
    printed = hosts.start(0, "training.log", sys.executable, script, f"{HEAD}:{PORT}", mode)
    wait_for(printed, lambda lines: bool(lines) and lines[-1]["steps"] > 500, 180)

    cut = time.time()
    hosts.set_link("down")
    lines = wait_for(printed, lambda lines: lines[-1]["runners"] == 1, 120)
    noticed = lines[-1]["at"] + lines[-1]["seconds"] - cut
    before = lines[-1]["steps"]
    lines = wait_for(printed, lambda lines: lines[-1]["steps"] > before + 500, 120)
    during = max(line["seconds"] for line in lines if line["at"] > cut)

    hosts.set_link("up")
    mended = time.time()
    lines = wait_for(printed, lambda lines: lines[-1]["runners"] == 2, 240)
    back = lines[-1]["at"] + lines[-1]["seconds"] - mended
    before = lines[-1]["steps"]
    lines = wait_for(printed, lambda lines: lines[-1]["steps"] > before + 300, 120)
    print(
        f"{mode}: noticed after {noticed:.1f} s, longest iteration without the host {during:.1f} s, "
        f"back {back:.1f} s after the link, {lines[-1]['lost']} fragments lost"
    )
    assert noticed < NOTICED_S
    assert during < NOTICED_S
    assert lines[-1]["lost"] <= 2
