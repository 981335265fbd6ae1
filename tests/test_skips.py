"""No test stays out where everything that it wants is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("installed", "outcome"), [("chromium libosmesa6", "1 failed, 1 skipped, 1 error"), ("", "3 skipped")]
)
def test_a_skipped_test_fails_where_its_tool_is_installed(
    tmp_path: Path, installed: str, outcome: str
) -> None:
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "def test_page():\n    pytest.skip('no chromium on this machine')\n"
        "@pytest.mark.skipif(True, reason='needs libosmesa6')\ndef test_frame():\n    pass\n"
        "@pytest.mark.skipif(True, reason='Box2D is not installed')\ndef test_lander():\n    pass\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "conftest",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "TDMPC_RAY_INSTALLED": installed}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert outcome in done.stdout.splitlines()[-1], done.stdout + done.stderr
