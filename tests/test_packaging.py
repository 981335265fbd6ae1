"""What is installed from a wheel or a source archive is what runs from the source."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import tdmpc_ray

ROOT = Path(__file__).parents[1]
DATA = (".py", ".c", ".csv", ".json", ".html", ".css", ".js", ".sbatch")
FILES = {p.relative_to(ROOT) for p in (ROOT / "tdmpc_ray").rglob("*") if p.suffix in DATA}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and the wheel that is built from it alone."""
    folder = tmp_path_factory.mktemp("packages")
    # From a copy: setuptools would take what an earlier build left in ./build.
    source = folder / "source"
    for file in (*map(Path, ("pyproject.toml", "README.md", "LICENSE")), *FILES):
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).write_bytes((ROOT / file).read_bytes())
    code = f"from setuptools import build_meta; print(build_meta.build_sdist({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    [archive] = folder.glob("*.tar.gz")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(archive)], check=True, capture_output=True)
    return folder


def test_the_quickstart_says_what_it_does_before_it_does_it(tmp_path: Path) -> None:
    # Also where the tests are run by make, which would say that it enters a folder.
    command = ["make", "--no-print-directory", "--dry-run", "quickstart", f"VENV={tmp_path / 'venv'}"]
    planned = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    first, second, _, install, *_ = planned.splitlines()
    size = "3 GB of disk"
    assert size in first
    assert size.removesuffix(" of disk") in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "CUDA" in second
    assert "pip install" in install
    assert "--quiet" not in install
    assert planned.index("about 7 minutes") < planned.index("tune experiments/quickstart.yaml")


def test_both_hold_everything_that_the_package_needs(built: Path) -> None:
    script = Path("tdmpc_ray/studies/run/tdmpc_ray.sbatch")
    assert {Path("tdmpc_ray/core/nn/kernels.c"), Path("tdmpc_ray/cli/__init__.py"), script} <= FILES
    [wheel] = built.glob("*.whl")
    assert {Path(name) for name in zipfile.ZipFile(wheel).namelist()} >= FILES
    [archive] = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        assert {Path(*Path(name).parts[1:]) for name in file.getnames()} >= FILES


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_installed_where_nothing_else_of_it_is(kind: str, built: Path, tmp_path: Path) -> None:
    """In an environment of its own; the dependencies, which take minutes, are those of this one."""
    [package] = built.glob(kind)
    venv.create(tmp_path / "venv", with_pip=False)
    [site] = (tmp_path / "venv").glob("lib/python*/site-packages")
    dependencies = sysconfig.get_paths()["purelib"]
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*install, "--target", str(site), str(package)], check=True, capture_output=True)
    # Behind the installed package, and without its .pth files, one of which may name our source.
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    # -E: a PYTHONPATH would come first.
    code = (
        "import tdmpc_ray, sys; from tdmpc_ray.cli import main; print(tdmpc_ray.__file__); sys.exit(main())"
    )
    command = [tmp_path / "venv/bin/python", "-E", "-c", code]
    said = subprocess.run([*command, "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    where, name = said.stdout.splitlines()
    assert Path(where).is_relative_to(site)
    assert name == f"tdmpc-ray {tdmpc_ray.__version__}"
    said = subprocess.run([*command, "envs", "walker-*"], cwd=tmp_path, capture_output=True, text=True)
    assert "walker-walk" in said.stdout, said.stderr
