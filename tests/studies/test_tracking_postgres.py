"""The tests of tracking once more, with MLflow on PostgreSQL instead of sqlite."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest
from postgres import Postgres, binaries

# Collected here again, with the `store` of this module.
from test_study_runs import *  # noqa: F403
from test_tracking_callback import *  # noqa: F403
from test_tracking_journal import *  # noqa: F403
from test_tracking_runs import *  # noqa: F403
from test_tracking_tune import *  # noqa: F403
from test_tracking_writer import *  # noqa: F403

pytestmark = [
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.skipif(binaries() is None, reason="needs Debian's postgresql"),
]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    code = f"from tdmpc_ray.studies.tracking.client import *; check_tracking({server.database('empty')!r})"
    # In a process of its own: a database that is connected to cannot be copied.
    subprocess.run([sys.executable, "-c", code], check=True)
    yield server
    server.stop()


@pytest.fixture
def store(postgres: Postgres) -> str:
    """Address of a fresh database with MLflow's tables."""
    return postgres.database(f"t{uuid.uuid4().hex[:8]}", template="empty")
