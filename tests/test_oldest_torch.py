"""`core` and the check of a GPU on other versions of PyTorch, in environments of their own.

The oldest that pyproject admits, and one that clusters are known to pin. The check runs on what
`make_pack.sh` packs, beside an environment without Ray, MuJoCo and the rest.
"""

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
_BESIDE = ["numpy<2.4", "scipy", "pandas", "pyarrow", "lxml"]  # what such a machine has, too
_MAX_PACK_MB = 55
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def oldest() -> str:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (line,) = [line for line in declared if line.startswith("torch>=")]
    return re.sub(r"^torch>=", "", line)


@pytest.fixture(scope="module", params=[oldest(), "2.11"])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("torch")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    packages = [f"torch=={request.param}.*", *_BESIDE, "pytest", "pytest-timeout", "hypothesis"]
    install = [folder / "bin" / "pip", "install", "--quiet", "--no-cache-dir", *packages]
    done = subprocess.run(install, capture_output=True, text=True)
    if "No matching distribution" in done.stderr:
        pytest.skip(f"pip offers no PyTorch {request.param} here")
    assert done.returncode == 0, done.stderr
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pack for this Python, unpacked."""
    folder = tmp_path_factory.mktemp("site")
    pack = pack_for(f"{sys.version_info[0]}.{sys.version_info[1]}", folder / "pack.tar.xz")
    subprocess.run(["tar", "--extract", "--file", pack, "--directory", folder], check=True)
    return folder


def pack_for(version: str, file: Path) -> Path:
    subprocess.run([ROOT / "tests" / "gpu" / "make_pack.sh", file, version], check=True)
    return file


def test_the_pack_is_small(tmp_path: Path) -> None:
    assert pack_for("3.12", tmp_path / "pack.tar.xz").stat().st_size <= _MAX_PACK_MB * 1e6


def test_core_runs_on_it(python: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/core", *_OTHERS]
    command += ["-m", "not slow and not learning and not docker"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]


def test_the_check_runs_on_it(python: str, site: Path, tmp_path: Path) -> None:
    command = [python, "tests/gpu/check.py", "--device", "cpu", "--quick", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
