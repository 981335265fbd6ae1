"""The image and the stack of docker/, built and started for tests. Variables:

TORCH_INDEX         where the image's torch comes from, as for `make image`
TDMPC_RAY_WHEELS    a folder with torch's wheel, instead of that index
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ports import free_ports

ROOT = Path(__file__).parents[2]
IMAGE = "tdmpc-ray:test"
_WHEELS_PORT = 28765  # always the same, or the engine would not know a layer again


def run(*command: str | Path, check: bool = True, timeout: float = 300, **options: Any) -> str:
    """What a command prints; where it fails, its last lines are the error."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=timeout, **options
    )
    if check and done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}: {(done.stdout + done.stderr)[-3000:]}", pytrace=False)
    return done.stdout + done.stderr


@contextmanager
def torch_index() -> Iterator[list[str]]:
    """Arguments of `docker build` that say where torch is."""
    folder = os.environ.get("TDMPC_RAY_WHEELS")
    if not folder:
        index = os.environ.get("TORCH_INDEX")
        yield ["--build-arg", f"TORCH_INDEX={index}"] if index else []
        return

    class Handler(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:  # the index has one package, whose folder this is
            return super().translate_path(path.removeprefix("/torch"))

        def log_message(self, *args: Any) -> None:
            pass

    handler = functools.partial(Handler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", _WHEELS_PORT), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{_WHEELS_PORT}"
    yield ["--network=host", "--build-arg", f"TORCH_INDEX={url}"]
    server.shutdown()


class Stack:
    """docker/compose.yaml with ports and secrets of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        mlflow, ray = free_ports(2)
        self.mlflow, self.ray = f"http://127.0.0.1:{mlflow}", f"http://127.0.0.1:{ray}"
        self.token = secrets.token_hex(32)
        settings = {
            "POSTGRES_PASSWORD": secrets.token_hex(32),
            "RAY_AUTH_TOKEN": self.token,
            "MLFLOW_PORT": mlflow,
            "MLFLOW_ALLOWED_HOSTS": "lab7.example.org:*",
            "MLFLOW_ALLOWED_ORIGINS": "http://lab7.example.org:5000",
            "RAY_PORT": ray,
            "TDMPC_RAY_IMAGE": IMAGE,
            "OBJECT_STORE_BYTES": 200_000_000,
            "SHM_SIZE": "300m",
        }
        self._settings = folder / "env"
        self._settings.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))

    def command(self, *args: str) -> list[str]:
        """`docker compose` on this stack."""
        files = ["--file", str(ROOT / "docker/compose.yaml"), "--env-file", str(self._settings)]
        return ["docker", "compose", "--project-name", "tdmpc-ray-test", *files, *args]

    def compose(self, *args: str, **options: Any) -> str:
        return run(*self.command(*args), **options)

    def up(self) -> float:
        """Seconds until every container is healthy."""
        start = time.monotonic()
        self.compose("up", "--detach", "--wait", "--scale", "worker=2", "--no-build", timeout=600)
        return time.monotonic() - start

    def containers(self, service: str) -> list[dict[str, Any]]:
        names = self.compose("ps", "--all", "--quiet", service).split()
        return json.loads(run("docker", "inspect", *names)) if names else []

    def cli(self, *args: str) -> subprocess.Popen[str]:
        """`tdmpc-ray` on the host, as a user with the cluster's token."""
        environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        return subprocess.Popen(
            [sys.executable, "-m", "tdmpc_ray.cli", *args],
            cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
