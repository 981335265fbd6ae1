"""MLflow's password shows in nothing that is printed, drawn, uploaded or sent along in clear."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from rich.console import Console
from synthetic import EXPERIMENT, log_study

from tdmpc_ray.addresses import public_address
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.checkpoints.open_folder import open_folder
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.results.compare import compare
from tdmpc_ray.studies.results.page import PAGE_FILE, write_report
from tdmpc_ray.studies.run.jobs import Jobs
from tdmpc_ray.studies.tracking import client as tracking
from tdmpc_ray.studies.tracking.client import one_line, public_uri, web_address, without_secrets

SECRET = "geheim-7"
LAB = f"http://lab:{SECRET}@mlflow:5000"


@pytest.fixture
def lab(store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a server, password and all, that a database stands for."""
    mlflow = tracking._import_mlflow()
    stand_in = SimpleNamespace(MlflowClient=lambda tracking_uri: mlflow.MlflowClient(store))
    tracking.ensure_experiment(
        tracking.connect(store), store, EXPERIMENT
    )  # its artifacts beside the database
    monkeypatch.setattr(tracking, "_import_mlflow", lambda: stand_in)
    return LAB


def test_page_tables_tags_and_results_have_no_password(
    lab: str, drive: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = log_study(drive, lab, tmp_path / "study", "one", sizes=("1",), seeds=2, tasks=("walker-walk",))
    printed = io.StringIO()
    console = Console(file=printed, width=300)
    compare(EXPERIMENT, lab, out=tmp_path / "out", charts=True, console=console)
    page = write_report(EXPERIMENT, lab, out=tmp_path / "out")
    assert "http://mlflow:5000/#/experiments/" in printed.getvalue()
    assert 'href="http://mlflow:5000/#/experiments/' in page.read_text(encoding="utf-8")
    texts = [printed.getvalue(), *capsys.readouterr()]
    files = [file for folder in ("out", "study", "mlartifacts") for file in (tmp_path / folder).rglob("*")]
    assert sum(file.name == PAGE_FILE for file in files) == 2
    private = {file for file in files if file.is_file() and not file.stat().st_mode & 0o077}
    assert {file.name for file in private} <= {"tracking.json"}  # what brings MLflow the rest needs it
    texts += [file.read_bytes().decode(errors="replace") for file in {*files} - private if file.is_file()]
    client = tracking.connect(lab)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id])
    assert tracker.parent_run_id in {run.info.run_id for run in runs}
    texts += [str([run.to_dictionary() for run in runs]), str(experiment.tags)]
    assert not [text[:200] for text in texts if SECRET in text]


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://lab:geheim@host:5000", "http://lab:***@host:5000"),
        ("http://geheim@host:5000", "http://***@host:5000"),
        ("http://lab:ab/geheim@host", "http://lab:***@host"),
        ("http://ab/geheim@host", "http://***@host"),
        ("http://host:5000/x?y=a@geheim", "http://host:5000/x?y=***"),
        ("http://host:5000/?api_key=geheim", "http://host:5000/?api_key=***"),
        ("http://host/?Access_Token=geheim&timeout=3", "http://host/?Access_Token=***&timeout=3"),
        ("http://host/?timeout=3&passphrase=geheim", "http://host/?timeout=3&passphrase=***"),
        ("http://[::1]:5000/#token=geheim", "http://[::1]:5000/#token=***"),
        ("http://host/?timeout=3#token=geheim", "http://host/?timeout=***"),
        ("http://host/?geheim", "http://host/?***"),
        ("http://host/#geheim", "http://host/#***"),
        ("http://lab:a?b=geheim@host", "http://***"),
        ("lab:geheim@host:5000", "lab:***@host:5000"),
        ("http:/lab:geheim@host", "http:***@host"),
        ("postgresql+psycopg2://lab:geheim@host/db", "postgresql+psycopg2://lab:***@host/db"),
        ("postgresql://lab:ge@heim@host/db", "postgresql://lab:***@host/db"),
        ("postgresql+psycopg2://lab:ge/h#e?im@host/db", "postgresql+psycopg2://lab:***@host/db"),
        ("postgresql://lab:a@b?geheim@host/db", "postgresql://***"),
        ("postgresql+psycopg2://h/db?user=lab&password=geheim&port=1", "postgresql+psycopg2://h/db?user=lab&password=***&port=1"),
        ("postgresql://h:1/db?password=a@geheim&sslmode=require", "postgresql://h:1/db?password=***&sslmode=require"),
        ("postgresql://h/db?host=http%3A%2F%2Flab%3Ageheim%40host", "postgresql://h/db?host=***"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Dlab%3BPWD%3Dgeheim", "mssql+pyodbc:///?odbc_connect=***"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER={ODBC 18};PWD=geheim", "mssql+pyodbc:///?odbc_connect=***"),
        ("postgresql+psycopg2://lab@/db?host=/run", "postgresql+psycopg2://lab@/db?host=/run"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("sqlite+pysqlcipher://:geheim@/mlflow.db", "sqlite+pysqlcipher://:***@/mlflow.db"),
        ("sqlite:////home/me@lab/mlflow.db?timeout=3", "sqlite:////home/me@lab/mlflow.db?timeout=3"),
        ("databricks://profile", "databricks://profile"),
    ],
)  # fmt: skip
def test_addresses_are_shown_without_their_secrets(uri: str, shown: str) -> None:
    assert public_uri(uri) == shown
    for text in (
        without_secrets(f"# ours\nuri: '{uri}'  # the lab's\n"),
        without_secrets(f"uri: {uri}\n"),
        one_line(OSError(f"API request to {uri}/api failed: reset")),
        one_line(OSError(f"no such url: {re.sub('^[^?#]*', '/', uri)}/api (of host:5000)")),
    ):
        assert not {"geheim", "heim"} & set(re.findall(r"\w+", text)), text


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3://key:geheim@bucket/x?region=here", "s3://bucket/x?region=here"),
        ("s3://key:ab/geheim@bucket/x", "s3://bucket/x"),
        ("s3://key:ge@heim@bucket/x", "s3://bucket/x"),
        ("s3://key:ab?geheim@bucket/x", "s3://bucket/x"),
        ("s3://key:a?b=geheim@bucket/x", "s3://***"),
        ("s3://bucket/me@lab/x?session_token=geheim", "s3://bucket/me@lab/x?session_token=***"),
        ("s3://bucket/x#geheim", "s3://bucket/x#***"),
        ("s3://b/x?scheme=http&endpoint_override=h%3A9", "s3://b/x?scheme=http&endpoint_override=h%3A9"),
        ("s3://b/x?endpoint_override=http%3A%2F%2Fk%3Ageheim%40h", "s3://b/x?endpoint_override=***"),
        ("s3://b/x?allow_bucket_creation=True", "s3://b/x?allow_bucket_creation=True"),
    ],
)
def test_addresses_of_folders_are_shown_without_their_keys(address: str, shown: str) -> None:
    assert public_address(address) == shown


def test_an_address_that_cannot_be_read_is_not_repeated() -> None:
    with pytest.raises(UserError, match=r"^cannot reach s3://bucket/x: Cannot parse URI") as caught:
        open_folder("s3://key:ab/geheim@bucket/x")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        (f"http://lab:{SECRET}@host:5000/", "http://host:5000"),
        (f"https://{SECRET}@host/mlflow?token={SECRET}", "https://host/mlflow"),
        (f"postgresql+psycopg2://lab:{SECRET}@host/db", ""),
        ("sqlite:///mlflow.db", ""),
    ],
)
def test_links_have_no_user(uri: str, address: str) -> None:
    assert web_address(uri) == address


def test_advice_names_no_password() -> None:
    assert tracking._advice(LAB, "403 Invalid Host header").startswith(
        "start the server with --allowed-hosts 'mlflow:5000'"
    )


def test_a_job_gets_its_address_of_mlflow_in_a_file(tmp_path: Path) -> None:
    sent: dict[str, Any] = {}

    def submit_job(**job: Any) -> str:
        folder = Path(job["runtime_env"]["working_dir"])
        sent.update(job, files={file.name: file.read_text() for file in folder.iterdir()})
        return str(job["submission_id"])

    values = {"name": "remote", "task": "walker-walk", "steps": 100}
    file = tmp_path / "remote.yaml"
    file.write_text(yaml.safe_dump(values))
    jobs: Any = Jobs.__new__(Jobs)  # without a cluster
    jobs.address, jobs._client = "http://head:8265", SimpleNamespace(submit_job=submit_job)
    jobs.submit(make_study(values), file, mlflow_uri=LAB)
    files = sent.pop("files")
    assert SECRET not in str(sent)
    # What the entrypoint gives the study, by a shell as on the cluster.
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "python"
    program.write_text('#!/bin/sh\necho "$MLFLOW_TRACKING_URI"\n')
    program.chmod(0o755)
    here = tmp_path / "job"
    here.mkdir()
    for name, text in files.items():
        (here / name).write_text(text)
    environment = {"PATH": f"{program.parent}:/usr/bin:/bin", "TDMPC_RAY_RESULTS": str(tmp_path / "results")}
    done = subprocess.run(
        ["sh", "-c", sent["entrypoint"]], cwd=here, env=environment, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == (LAB + "\n", "")
