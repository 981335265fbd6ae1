"""The engine, the image and the stack of the tests marked `docker`: `make test-docker`."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from stack import IMAGE, ROOT, Stack, run, torch_index


@pytest.fixture(scope="session")
def engine() -> None:
    """Skips where there is none."""
    if shutil.which("docker") is None:
        pytest.skip("needs docker on PATH")
    for needed, command in (
        ("a Docker engine that answers", "info"),
        ("docker compose v2", "compose version"),
    ):
        done = subprocess.run(["docker", *command.split()], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"needs {needed}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")


@pytest.fixture(scope="session")
def image(engine: None) -> dict[str, Any]:
    """The built image's description; it takes minutes at the first time."""
    start = time.monotonic()
    with torch_index() as index:
        run(
            "docker", "build", "--file", "docker/Dockerfile", "--tag", IMAGE, *index, ".",
            cwd=ROOT, timeout=3000,
        )  # fmt: skip
    [description] = json.loads(run("docker", "image", "inspect", IMAGE))
    print(f"\nimage: {description['Size'] / 1e9:.2f} GB, built in {time.monotonic() - start:.0f} s")
    return description


@pytest.fixture(scope="session")
def stack(image: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Up and healthy; its volumes are removed at the end."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        print(f"\nstack: healthy after {stack.up():.0f} s")
        yield stack
    finally:
        print(stack.compose("logs", "--tail", "20", check=False))
        stack.compose("down", "--volumes", "--timeout", "30", check=False)
