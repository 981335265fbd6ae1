"""The image by itself."""

from __future__ import annotations

from typing import Any

import pytest
from stack import IMAGE, run

from tdmpc_ray import __version__

pytestmark = [pytest.mark.docker, pytest.mark.timeout(3000)]


def inside(image: dict[str, Any], *command: str, options: tuple[str, ...] = ()) -> str:
    return run("docker", "run", "--rm", *options, IMAGE, *command)


def test_it_is_small_and_nobody_is_root(image: dict[str, Any]) -> None:
    assert image["Size"] < 3e9
    assert image["Config"]["User"] == "10001:10001"
    assert image["Config"]["Healthcheck"]["Test"] == ["CMD", "python", "/opt/health.py"]
    assert image["Config"]["Labels"]["org.opencontainers.image.title"] == "tdmpc-ray"
    assert inside(image, "id", "-u").strip() == "10001"


def test_the_command_is_on_path_in_login_shells_too(image: dict[str, Any]) -> None:
    """KubeRay starts Ray, and probes it, in `bash -lc`."""
    assert __version__ in inside(image, "tdmpc-ray", "--version")
    said = inside(image, "/bin/bash", "-lc", "command -v tdmpc-ray ray wget gcc python")
    assert said.splitlines()[:2] == ["/opt/venv/bin/tdmpc-ray", "/opt/venv/bin/ray"]
    assert "/opt/venv/bin/python" in said


def test_it_draws_without_a_screen(image: dict[str, Any]) -> None:
    code = (
        "from dm_control import suite;"
        "frame = suite.load('walker', 'walk').physics.render(64, 64, camera_id=0);"
        "print(frame.shape, frame.std() > 5)"
    )
    assert "(64, 64, 3) True" in inside(image, "python", "-c", code)


def test_it_trains(image: dict[str, Any]) -> None:
    said = inside(
        image,
        "tdmpc-ray", "train", "--task", "gym:Pendulum-v1", "--model-size", "tiny", "--preset", "light",
        "--steps", "400", "--set", "data.seed_steps=200", "--eval-episodes", "1", "--out", "/results/a",
        options=("--shm-size=300m",),
    )  # fmt: skip
    assert "done after 400 steps" in said


def test_health_sees_a_folder_that_cannot_be_written(image: dict[str, Any]) -> None:
    assert inside(image, "python", "/opt/health.py").strip() == "healthy"
    said = run(
        "docker", "run", "--rm", "--volume", "/:/results:ro", IMAGE, "python", "/opt/health.py", check=False
    )
    assert "Read-only file system" in said
