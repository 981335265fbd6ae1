"""What is installed from a wheel is what runs from the source."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_wheel_holds_everything_that_the_package_needs(tmp_path: Path) -> None:
    # From a copy: setuptools would take what an earlier build left in ./build.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    files = {p.relative_to(ROOT) for p in (ROOT / "tdmpc_ray").rglob("*") if p.suffix in (".py", ".c")}
    for file in files:
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).write_bytes((ROOT / file).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    packed = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    assert files <= packed
    assert Path("tdmpc_ray/core/kernels.c") in files
