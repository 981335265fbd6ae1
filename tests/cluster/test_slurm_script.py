"""The batch script for SLURM: what it starts, what it does at a signal, and what it leaves behind."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_stubs import SCRIPT, Batch, short_folder

from tdmpc_ray.studies.run import interrupt


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[Callable[..., Batch]]:
    with short_folder() as tmp:
        yield lambda **variables: Batch(tmp_path, tmp, **variables)


def test_a_study_runs_on_all_that_the_allocation_has(batch: Callable[..., Batch]) -> None:
    job = batch(DRIVER="0")
    assert job.run() == (0, "")
    head, worker = job.said("ray ")
    port = re.search(r"--port=(\d+)", head)
    assert port is not None
    assert int(port[1]) - 10_000 - int(job.job_id) % 10_000 in range(50)
    for line in (head, worker):
        assert {"--num-cpus=4", "--num-gpus=2", f"--temp-dir={job.tmp}/ray-{job.job_id}/t"} <= {*line.split()}
        assert f"--memory={3600 << 20} --object-store-memory={400 << 20}" in line
        assert line.endswith("token=64")
    assert f"--address=127.0.0.1:{port[1]}" in worker
    assert [line.split()[2] for line in job.said("head") + job.said("worker")] == ["ignores"] * 2
    assert all("--exclude=n1" in line and "--nodes=1" in line for line in job.said("srun"))
    assert job.said("tdmpc-ray") == [f"tdmpc-ray tune s.yaml --out {job.out}"]
    assert not job.said("scontrol")
    assert not job.left_behind()
    assert not [*job.tmp.iterdir()]


def test_one_node_needs_no_srun_and_a_failed_study_fails_its_job(batch: Callable[..., Batch]) -> None:
    job = batch(DRIVER="1", SLURM_JOB_NUM_NODES="1", SLURM_GPUS_ON_NODE="", SLURM_MEM_PER_NODE="64000")
    assert job.run() == (1, "")
    assert not job.said("srun")
    assert not job.said("scontrol")
    [head] = job.said("ray ")
    assert "--num-gpus=0" in head
    assert f"--object-store-memory={4000 << 20}" in head


def test_at_the_warning_it_saves_and_goes_back_into_the_queue_and_then_goes_on(
    batch: Callable[..., Batch],
) -> None:
    job = batch()
    status, said = job.run(signal.SIGUSR1, signal.SIGUSR1)
    assert status == 128 + signal.SIGUSR1
    assert said == f"saved: job {job.job_id} goes back into the queue, and goes on from there by itself\n"
    assert job.said("got") == ["got USR1"]
    assert job.notes[-1] == f"scontrol requeue {job.job_id}"
    assert not job.left_behind()
    job.environment["DRIVER"] = "0"
    assert job.run() == (0, "")
    assert job.said("tdmpc-ray")[1:] == [f"tdmpc-ray resume {job.out}"]
    assert len(job.said("scontrol")) == 1


def test_it_says_where_slurm_does_not_take_it_back(batch: Callable[..., Batch]) -> None:
    status, said = batch(REQUEUE="1").run(signal.SIGUSR1)
    assert (status, said.splitlines()[1:]) == (
        128 + signal.SIGUSR1, ["error: it does not: submit it again with the same folder"]
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_stops_it_does_not_want_it_back(batch: Callable[..., Batch], number: signal.Signals) -> None:
    job = batch()
    assert job.run(number) == (128 + signal.SIGTERM, "")
    assert job.said("got") == ["got TERM"]
    assert not job.said("scontrol")


@pytest.mark.parametrize(("when", "joined"), [("tdmpc-ray ", ""), ("head ", "never")])
def test_a_time_too_short_to_save_anything_is_not_tried_for_ever(
    batch: Callable[..., Batch], when: str, joined: str
) -> None:
    job = batch(SAVES="", JOINED=joined)
    status, said = job.run(signal.SIGUSR1, after=when)
    assert status == 128 + signal.SIGUSR1
    assert said.startswith("error: the warning came before anything was saved: give the job more --time")
    assert not job.said("scontrol")
    assert not job.left_behind()
    assert bool(job.said("tdmpc-ray")) == (when == "tdmpc-ray ")


@pytest.mark.parametrize(
    ("variables", "last_words"),
    [
        (
            {"RAY_FAILS": "head", "JOINED": "never"},
            "Ray has ended before the study began; its last words stand above",
        ),
        (
            {"RAY_FAILS": "worker", "JOINED": "never"},
            "Ray has ended before the study began; its last words stand above",
        ),
        ({"JOINED": "1"}, "Ray did not start on all nodes: 1 of 2 nodes joined"),
        ({"TDMPC_RAY_JOIN_S": "0"}, "Ray's head did not start within 0 s (TDMPC_RAY_JOIN_S)"),
    ],
)
def test_where_ray_does_not_start_no_study_does(
    batch: Callable[..., Batch], variables: dict[str, str], last_words: str
) -> None:
    job = batch(**variables)
    status, said = job.run()
    assert (status, said.splitlines()[-1]) == (1, f"error: {last_words}")
    if "RAY_FAILS" in variables:
        assert "the port is taken" in said
        assert len(job.said("worker")) == 3 * (variables["RAY_FAILS"] == "worker")
    assert not job.said("tdmpc-ray")
    assert not job.left_behind()


@pytest.mark.parametrize(
    ("changes", "args", "says"),
    [
        ({}, ("s.yaml",), "give a study and a folder for its results: sbatch"),
        ({"SLURM_JOB_ID": ""}, (), "this is a batch script"),
        ({"SLURM_ARRAY_JOB_ID": "7"}, (), "a study is one job: leave out --array"),
        ({}, ("s.yaml", "s3://bucket/x"), "s3://bucket/x is no folder: give one that all nodes share"),
        ({}, ("none.yaml", "x"), "there is no study none.yaml on n1"),
        ({"RAY_TMPDIR": "/tmp/" + 40 * "x"}, (), "is too long a path for Ray's sockets"),
        (
            {"PATH": "/usr/bin:/bin"},
            (),
            "ray is not on the path of n1: activate the environment of tdmpc-ray",
        ),
    ],
)
def test_what_cannot_work_is_said_in_a_line_before_anything_starts(
    batch: Callable[..., Batch], changes: dict[str, Any], args: tuple[str, ...], says: str
) -> None:
    job = batch(**changes)
    status, said = job.run(args=args)
    assert (status, said.count("\n")) == (2, 1)
    assert says in said
    assert not job.notes


def test_the_warning_leaves_time_to_save() -> None:
    seconds = re.search(r"^#SBATCH --signal=B:USR1@(\d+)$", SCRIPT.read_text(), re.MULTILINE)
    assert seconds is not None
    assert int(seconds[1]) >= 1.5 * interrupt.GRACE_S
