"""Studies handed to SLURM: what sbatch is given, what is said, and what is refused."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from tdmpc_ray import cli
from tdmpc_ray.studies.run import slurm
from tdmpc_ray.studies.words import SBATCH_OPTIONS, resume_command

OPTIONS = "--nodes=2 --comment='two words'"
_SBATCH = f"""#!{sys.executable} -SE
import json, os, sys
if "--partition=none" in sys.argv:
    print("sbatch: error: invalid partition specified: none", file=sys.stderr)
    sys.exit("sbatch: error: Batch job submission failed: Invalid partition name specified")
with open("given.json", "w") as file:
    json.dump([sys.argv[1:], os.environ["PATH"], os.environ["{SBATCH_OPTIONS}"]], file)
print("12;cluster")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a study; sbatch is on the path and notes what it is given."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sbatch").write_text(_SBATCH)
    (tmp_path / "bin/sbatch").chmod(0o755)
    (tmp_path / "s.yaml").write_text("{name: s, task: walker-walk, steps: 2000}")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_study_is_handed_to_slurm(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["submit", "s.yaml", "--slurm", "--sbatch-options", OPTIONS, "--out", "50%/x"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "submitted: 12, in 50%/x",
        "follow it with: tail -F 50%/x.log",
        "stop it with: scancel --batch --signal=INT 12",
        "before it has begun, with: scancel 12",
    ]
    args, path, options = json.loads((here / "given.json").read_text())
    log = f"--output={here}/50%%/x.log"  # a % stands for something of the job
    ends = [str(slurm.SCRIPT), str(here / "s.yaml"), str(here / "50%/x")]
    assert args == ["--parsable", "--nodes=2", "--comment=two words", log, *ends]
    assert (path.split(":")[0], options) == (str(Path(sys.executable).parent), OPTIONS)
    assert (here / "50%").is_dir()
    assert not (here / "50%/x").exists()


def test_a_job_begins_where_results_lie_and_goes_on_there(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["submit", "s.yaml", "--slurm"]) == 0
    out = Path(capsys.readouterr().out.splitlines()[0].rpartition(" ")[2])
    assert (out.parent, out.name[:2]) == (Path("results"), "s-")
    out.mkdir(parents=True)
    (out / "study.yaml").touch()
    assert cli.main(["resume", str(out), "--slurm"]) == 0
    args, _, _ = json.loads((here / "given.json").read_text())
    assert args[-2:] == [str(here / out / "study.yaml"), str(here / out)]


def test_what_a_job_prints_goes_on_as_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SBATCH_OPTIONS, OPTIONS)
    command = resume_command("/r/x")
    assert command.endswith(f"tdmpc-ray resume /r/x --slurm --sbatch-options={shlex.quote(OPTIONS)}")
    monkeypatch.setenv(SBATCH_OPTIONS, "")
    assert resume_command("/r/x").endswith("tdmpc-ray resume /r/x --slurm")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["submit", "s.yaml", "--slurm", "--wait", "--with-code"],
            "--wait, --with-code does not go with --slurm",
        ),
        (
            ["submit", "s.yaml", "--slurm", "--mlflow-uri", "http://m"],
            "--mlflow-uri does not go with --slurm",
        ),
        (["submit", "s.yaml", "--sbatch-options", "-N2"], "--sbatch-options goes with --slurm alone"),
        (["submit", "s.yaml", "--out", "x"], "--out goes with --slurm alone"),
        (["resume", "x", "--slurm", "--steps", "0"], "--steps does not go with --slurm"),
        (["submit", "none.yaml", "--slurm"], "cannot read none.yaml: No such file or directory"),
        (["submit", "s.yaml", "--slurm", "--out", "bin"], "/bin holds something else: choose a new folder"),
        (["submit", "s.yaml", "--slurm", "--out", "s3://bucket/x"], "s3://... is an address"),
        (["resume", "s3://bucket/x", "--slurm"], "s3://... is an address"),
        (["resume", "bin", "--slurm"], "bin is not a study's folder"),
        (
            ["submit", "s.yaml", "--slurm", "--sbatch-options", "'"],
            "--sbatch-options ': no closing quotation",
        ),
        (
            ["submit", "s.yaml", "--slurm", "--sbatch-options", "-N2 -oX"],
            "--sbatch-options: leave out --output",
        ),
        (
            ["submit", "s.yaml", "--slurm", "--sbatch-options", "--partition=none"],
            "SLURM refuses the job: invalid partition specified: none; Batch job submission failed: Invalid",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_refused(
    here: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(args) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (here / "given.json").exists()


def test_without_slurm(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(here))
    assert cli.main(["submit", "s.yaml", "--slurm"]) == 2
    assert capsys.readouterr().err == (
        "error: sbatch is not on the path: call this where jobs are handed to SLURM\n"
    )
    assert {path.name for path in here.iterdir()} == {"bin", "s.yaml"}
