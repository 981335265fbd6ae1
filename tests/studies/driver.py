"""Commands in processes of their own, to be stopped and killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


class Driver:
    """A study in a process of its own, on a Ray of its own unless `variables` name another.

    Args:
        folder: where it runs.
        args: of Python.
        variables: of its environment.
    """

    def __init__(self, folder: Path, *args: str, **variables: str) -> None:
        self.mark = f"TDMPC_RAY_TEST={uuid.uuid4().hex}"
        self.log = folder / f"{self.mark[-6:]}.log"
        name, value = self.mark.split("=")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_"))}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *args],
                cwd=folder,
                stdout=log,
                stderr=log,
                env={**environment, **variables, name: value},
                start_new_session=True,
            )

    def wait_for(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def end(self, seconds: float = 300) -> int:
        return self.process.wait(seconds)

    def processes(self, title: str) -> list[int]:
        """Of those that this one started, the ones with this command line; Ray's actors have titles."""
        return [pid for pid, command in self._alive() if title in command]

    def kill(self) -> None:
        """As the kernel would; Ray's agents, which take a minute to miss their raylet, are ended as well."""
        self.process.kill()
        self.end()
        for pid in (pid for agent in _AGENTS for pid in self.processes(agent)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def left_behind(self, seconds: float = 120) -> list[str]:
        """Command lines of processes that this one started and that are still there after `seconds`."""
        deadline = time.monotonic() + seconds
        while (found := self._alive()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [command for _, command in found]

    def _alive(self) -> list[tuple[int, str]]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found.append((int(folder.name), command))
            except OSError:
                continue
        return found
