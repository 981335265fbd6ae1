"""A PostgreSQL of its own for the tests, from Debian's package, run by an ordinary user."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg2


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`, or None."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders and (found := shutil.which("initdb")):
        folders = [Path(found).parent]
    return folders[-1] if folders else None


class Postgres:
    """Listens on a socket file alone; `database(name)` makes one and gives its address."""

    def __init__(self) -> None:
        bin_folder = binaries()
        assert bin_folder is not None
        self._bin = bin_folder
        # PostgreSQL refuses to be run by root; a folder that others may enter, as pytest's are not.
        self._as: dict[str, Any] = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid}
        if os.geteuid() != 0:
            self._as = {}
        self.folder = Path(tempfile.mkdtemp(prefix="tdmpc-pg-"))
        if self._as:
            shutil.chown(self.folder, "nobody", self._as["group"])
        subprocess.run(
            [self._bin / "initdb", "-D", "data", "--username", "tester", "--auth", "trust", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=self.folder,
            **self._as,
        )
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", "data", "-k", self.folder, "-h", "", "-F"],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self._as,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                self._sql("select 1")
                return
            except psycopg2.OperationalError:
                time.sleep(0.2)
        raise RuntimeError((self.folder / "log").read_text())

    def database(self, name: str, template: str = "template1") -> str:
        """MLflow's address of a new database, a copy of another one."""
        self._sql(f"create database {name} template {template}")
        return f"postgresql+psycopg2://tester@/{name}?host={self.folder}"

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)  # without waiting for its clients
        self._process.wait(30)
        shutil.rmtree(self.folder)

    def _sql(self, statement: str) -> None:
        with contextlib.closing(
            psycopg2.connect(host=str(self.folder), user="tester", dbname="postgres")
        ) as connection:
            connection.autocommit = True
            connection.cursor().execute(statement)
