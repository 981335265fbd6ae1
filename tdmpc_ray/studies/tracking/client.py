"""Reaching an MLflow server or database: checked at the start, quiet, with bounded waits.

The only module that knows how MLflow is configured. MLflow is imported inside the functions, because its
import takes seconds that `tdmpc-ray --help` should not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from tdmpc_ray.addresses import masked_part, masked_query, split_user
from tdmpc_ray.errors import UserError

DEFAULT_URI = "sqlite:///mlflow.db"
ARTIFACT_FOLDER = "mlartifacts"  # next to the sqlite file

# MLflow's own defaults (7 retries of 120 s) would hold one request for many minutes; whoever sets these
# variables decides. MLflow reads them at every request, so they can only be set for the whole process.
WRITER_ENV = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}

_CHECK_S = 4.0  # for an answer of a server
_CHECK_DATABASE_S = 90.0  # a new database creates its tables first, which takes seconds
_HTTP = ("http", "https")
_SDK = "mlflow.utils.databricks_utils"  # warns before MLflow raises
_SQLITE = re.compile(r"sqlite(\+\w+)?:///", re.IGNORECASE)  # maybe with the name of a driver
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_IN_TEXT = r"(?:[^\s'\"]|['\"](?=\w))"  # of an address; a quote may end it
_ADDRESS = re.compile(rf"[\w+.-]+://{_IN_TEXT}*")
_PARTS = re.compile(  # of the query of one
    rf"((?<=/)[?#]|[?&;](?=[\w.-]+=)|(?<=\S)#(?=[\w.-]+=))((?:(?!&){_IN_TEXT})+)"
)


def default_uri() -> str:
    """Where MLflow is if nobody says so: as MLflow's own variable has it, or in a file."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def connect(uri: str) -> Any:
    """Return an `MlflowClient` for `uri`; a database is opened at once."""
    return _import_mlflow().MlflowClient(tracking_uri=uri)


def _import_mlflow() -> Any:
    """MLflow with its log noise off and its waits bounded."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines for each trial
    for name, value in WRITER_ENV.items():
        os.environ.setdefault(name, value)
    import mlflow

    # The first use of a database reports each of its migrations, and a database error prints its whole
    # traceback before it is raised.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    for name in ("alembic", "alembic.runtime.migration", "mlflow.tracking", "urllib3.connectionpool", _SDK):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow


def check_tracking(uri: str, experiment: str | None = None, *, create: bool = True) -> None:
    """Make sure that MLflow answers at `uri`, and that `experiment` can be written to.

    Does real requests, because a server that refuses this host's name still answers its health check. A new
    database gets its tables here, and the experiment is created if absent, unless `create` is false.

    Raises:
        UserError: not an address of MLflow, no answer within 5 seconds, or the experiment was deleted.
    """
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise UserError(f"'{public_uri(uri)}' is not an address: {error}") from None
    _check_scheme(uri, parts.scheme)
    database = parts.scheme.partition("+")[0]
    if database == "sqlite":
        _check_folder(uri)
        if not create:
            return
    problem: list[BaseException] = []
    found: list[Any] = []

    def ask() -> None:
        try:
            if not create and database in _DATABASES:
                _open_database(uri)
                return
            with _sole_user(uri):
                client = connect(uri)
                client.search_experiments(max_results=1)
                if experiment and create:
                    ensure_experiment(client, uri, experiment)
                if experiment:
                    found.append(client.get_experiment_by_name(experiment))
        except Exception as error:
            problem.append(error)

    _import_mlflow()  # outside the time limit
    with _environment(MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", MLFLOW_HTTP_REQUEST_TIMEOUT="4"):
        # A thread, because name resolution and database drivers have waits of their own.
        thread = threading.Thread(target=ask, daemon=True, name="mlflow-check")
        thread.start()
        thread.join(_CHECK_S if parts.scheme in _HTTP else _CHECK_DATABASE_S)
    if problem or thread.is_alive():
        reason = one_line(problem[0]) if problem else "no answer in time"
        raise UserError(
            f"MLflow at {public_uri(uri)} cannot be used ({reason}): {_advice(uri, reason)}"
        ) from None
    if found and found[0] is not None and found[0].lifecycle_stage != "active":
        raise UserError(
            f"MLflow experiment '{experiment}' was deleted: restore it with `mlflow experiments restore "
            f"-x {found[0].experiment_id}` or choose another name"
        )


def ensure_experiment(client: Any, uri: str, name: str) -> str:
    """Return the id of experiment `name`; create it, with its artifacts beside a sqlite file, if absent."""
    from mlflow.exceptions import MlflowException

    existing = client.get_experiment_by_name(name)
    if existing is not None:
        return str(existing.experiment_id)
    path = sqlite_path(uri)
    location = None if path is None else (path.parent / ARTIFACT_FOLDER).as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:
        # Another study may have created it in between.
        existing = client.get_experiment_by_name(name)
        if existing is None:
            raise
        return str(existing.experiment_id)


def sqlite_path(uri: str, folder: Path | str = "") -> Path | None:
    """Absolute path of the database file of a sqlite address, or None for any other address.

    A relative one begins at `folder`; none: this process's own.
    """
    found = _SQLITE.match(uri)
    return None if found is None else Path(folder, uri[found.end() :].partition("?")[0]).absolute()


def absolute_uri(uri: str, folder: Path | str = "") -> str:
    """The same address, independent of the working folder; `folder` as for `sqlite_path`."""
    path = sqlite_path(uri, folder)
    if path is None:
        return uri
    return f"{uri.partition(':')[0]}:///{path}{uri[uri.find('?') :] if '?' in uri else ''}"


def one_line(error: BaseException, limit: int = 160) -> str:
    """The gist of an exception in one line, without secrets of an address."""
    text = without_secrets(str(error))
    for known, short in (
        ("Connection refused", "connection refused"),
        ("Name or service not known", "unknown host name"),
        ("Temporary failure in name resolution", "unknown host name"),
        ("timed out", "no answer in time"),
        ("Invalid Host header", "403 Invalid Host header"),
    ):
        if known in text:
            return short
    lines = text.strip().splitlines() or [type(error).__name__]
    return lines[0][:limit]


def _check_scheme(uri: str, scheme: str) -> None:
    accepted = "give http://HOST:PORT, sqlite:///FILE.db or postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE"
    if uri == "databricks":
        return
    if scheme in ("", "file"):
        raise UserError(
            f"'{public_uri(uri)}' is not an address of MLflow (no file store is any more): {accepted}"
        )
    if scheme.partition("+")[0] not in (*_HTTP, *_DATABASES, "databricks"):
        raise UserError(f"'{public_uri(uri)}' is not an address of MLflow: {accepted}")


def _check_folder(uri: str) -> None:
    path = sqlite_path(uri)
    if path is None or path.is_dir():
        raise UserError(
            f"'{public_uri(uri)}' names no database file: write sqlite:///mlflow.db or sqlite:////absolute/path.db"
        )
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(
            f"cannot create MLflow's database {path}: the folder {path.parent} is missing or read-only"
        )


def _open_database(uri: str) -> None:
    """Through MLflow itself, a new one would get its tables."""
    import sqlalchemy

    sqlalchemy.create_engine(uri).connect().close()


def _advice(uri: str, reason: str) -> str:
    if "403" in reason:
        host = urlsplit(uri).netloc.rpartition("@")[2]
        return f"start the server with --allowed-hosts '{host}', or check your rights there"
    if "401" in reason:
        return "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to yours"
    if uri.startswith("databricks"):
        return "set DATABRICKS_HOST and DATABRICKS_TOKEN, or write ~/.databrickscfg"
    if uri.startswith(_HTTP):
        return "start the server, or correct its address"
    if "psycopg" in reason:
        return "install the driver, or write postgresql+psycopg2:// where psycopg2 is the one installed"
    return "check the address, and that the database is one of this MLflow's version"


def public_uri(uri: str) -> str:
    """The address without its secrets."""
    scheme, mark, rest = uri.partition("://") if "://" in uri else ("", "", uri)
    if _SQLITE.match(uri):  # a path, which may hold an '@'
        return scheme + mark + masked_query(rest)
    who, place = split_user(rest)
    if who is None:
        return f"{scheme}{mark}***"
    user, colon, _ = who.partition(":")
    # A server's user without a password is a token.
    is_public = re.search("[/?#]", user) is None and (colon or scheme not in _HTTP)
    shown = (user if is_public else "***") + (":***" if colon else "")
    return scheme + mark + (f"{shown}@" if who else "") + place


def web_address(uri: str) -> str:
    """A server's address for links: without a user, as the browser asks who one is; empty for databases."""
    parts = urlsplit(public_uri(uri))
    if parts.scheme not in _HTTP:
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def without_secrets(text: str) -> str:
    """A text without the secrets of addresses in it, whole ones or their queries alone.

    A password may hold a space: what stands between `://` and the line's last `@` is left out.
    """
    text = _ADDRESS.sub(lambda found: public_uri(found[0]), text)
    text = _PARTS.sub(lambda found: found[1] + masked_part(found[2]), text)
    return re.sub(r"(://).*@|(:)\S+@", r"\1\2***@", text)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read: it holds MLflow's address, maybe with a password.

    Where the disk is full, what was there before stays.
    """
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text, encoding="utf-8")
    new.replace(path)


@contextlib.contextmanager
def _sole_user(uri: str) -> Iterator[None]:
    """Two processes that create the tables of one new sqlite file would break it."""
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    lock = path.resolve().with_name(f".{path.name}.lock")
    if not os.access(lock.parent, os.W_OK):  # nobody makes tables there
        yield
        return
    with FileLock(lock, timeout=_CHECK_DATABASE_S, mode=0o666):  # others may use the database, too
        yield
        lock.unlink(missing_ok=True)  # whoever waits for it sees that, and makes it anew


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
