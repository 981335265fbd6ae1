"""What several suites share: one torch thread, a small local Ray, the one tiny config."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.setdefault("MUJOCO_GL", "egl")

import pytest
import torch
from pyarrow.fs import FileSystem
from tiny import TINY

torch.set_num_threads(1)


@pytest.fixture
def tiny_overrides() -> dict[str, object]:
    return dict(TINY)


@contextmanager
def same_environment() -> Iterator[None]:
    """What commands set for Ray and Tune does not outlive the block."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Of each test; and, as fixtures of a module run commands, too, of each module."""
    with same_environment():
        yield


@pytest.fixture(autouse=True, scope="module")
def own_environment_of_module() -> Iterator[None]:
    with same_environment():
        yield


@pytest.fixture(scope="module")
def local_ray() -> None:
    """One Ray for all modules of a folder that ask for it: it takes 5 s to start."""
    import ray

    if not ray.is_initialized():
        ray.init(
            address="local",  # not one that happens to run on this machine
            num_cpus=4,
            object_store_memory=100 * 2**20,
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
        )


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """Address of a folder on an S3 server of this test; `{}` in it stands for a path."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        options = f"scheme=http&endpoint_override=127.0.0.1%3A{port}&region=us-east-1"
        address = f"s3://key:secret@bucket{{}}?{options}&allow_bucket_creation=true"
        filesystem, path = FileSystem.from_uri(address.format(""))
        filesystem.create_dir(path)
        yield address
    finally:
        server.terminate()
        server.wait()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if "ray" in sys.modules and (nextitem is None or nextitem.path.parent != item.path.parent):
        sys.modules["ray"].shutdown()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that is skipped for want of what `.ci/run` has installed fails instead."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[-1]
        installed = os.environ.get("TDMPC_RAY_INSTALLED", "").split()
        if any(tool in reason for tool in installed):
            report.outcome, report.longrepr = "failed", f"skipped where nothing is missing: {reason}"
    return report


def pytest_report_header(config: pytest.Config) -> str | None:
    """How fast this machine is, in `make`'s runs: what is slow elsewhere can be told from what hangs."""
    if not config.option.markexpr:
        return None
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    imported = time.perf_counter() - started
    a = torch.rand(1024, 1024)
    a @ a
    started = time.perf_counter()
    for _ in range(10):
        a @ a
    gflops = 20 * 1.024**3 / (time.perf_counter() - started)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    speeds = f"{gflops:.0f} GFLOP/s, torch imported in {imported:.1f} s"
    return f"machine: {cores} cores, load {load:.1f}, {memory:.0f} GiB, {speeds}"
