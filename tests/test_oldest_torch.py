"""`core` on the oldest PyTorch that pyproject admits, in an environment of its own."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Their outputs need packages that are not PyTorch's.
_OTHERS = ["--ignore", "tests/core/test_core_export.py"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def oldest() -> str:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (line,) = [line for line in declared if line.startswith("torch>=")]
    return re.sub(r"^torch>=", "", line)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("oldest")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    packages = [f"torch=={oldest()}.*", "numpy<2.4", "scipy", "pytest", "pytest-timeout", "hypothesis"]
    install = [folder / "bin" / "pip", "install", "--quiet", "--no-cache-dir", *packages]
    done = subprocess.run(install, capture_output=True, text=True)
    if "No matching distribution" in done.stderr:
        pytest.skip(f"pip offers no PyTorch {oldest()} here")
    assert done.returncode == 0, done.stderr
    return str(folder / "bin" / "python")


def test_core_runs_on_it(python: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/core", *_OTHERS]
    command += ["-m", "not slow and not learning and not docker"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
