"""Studies as jobs of a Ray cluster: submitted over its job server, followed, stopped, resumed.

The cluster's head runs `tdmpc-ray tune` for us; what a study needs beside its file goes along as the job's
working directory. Token authentication is Ray's own (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shlex
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tdmpc_ray
from tdmpc_ray.errors import UserError, reason
from tdmpc_ray.studies.file.names import new_name
from tdmpc_ray.studies.run.following import Log, Unwritable, is_cut
from tdmpc_ray.studies.run.sending import stage
from tdmpc_ray.studies.tracking.client import public_uri, write_private
from tdmpc_ray.studies.words import JOB_ADDRESS

if TYPE_CHECKING:
    from tdmpc_ray.studies.file.spec import Study  # with PyTorch, whose import takes seconds

# Where the cluster keeps results: a variable of its own can name a folder that all its machines share.
RESULTS = '"${TDMPC_RAY_RESULTS:-$HOME/tdmpc-ray-results}"'
STOP_WAIT_S = 300  # for checkpoints, before Ray kills the job; the trials have 180 s of it
_ID = re.compile(r"(?P<out>(?P<study>\w[\w.-]*)-\d{8}-\d{6}-[0-9a-f]{6})(-(again|sync)-[0-9a-f]{6})?")
_AGAIN = {"resume": "again", "sync": "sync"}
_STUDY, _OUT, _CODE, _BESIDE = "study", "out", "with_code", "beside"  # keys of a job's metadata
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_POLL_S, _GIVE_UP_S, _START_S = 1.0, 600.0, 60.0  # between questions, without an answer, for a head's start
_MLFLOW_FILE = ".mlflow_uri"  # sent along: Ray shows a job's environment and command to whoever lists jobs


class UnknownJob(UserError):
    """The cluster has no record of a job: it never was, or the head was started anew since."""


class NoAnswer(UserError):
    """Nobody answers, or the way there is cut."""


@dataclass(frozen=True)
class Job:
    """A study on a cluster.

    Attributes:
        id: of the submission.
        study: its name.
        status: PENDING, RUNNING, or how it ended: SUCCEEDED, FAILED, STOPPED.
        message: Ray's, about it; without the log.
        started, ended: seconds since 1970, or None.
    """

    id: str
    study: str
    status: str
    message: str
    started: float | None
    ended: float | None

    @property
    def has_ended(self) -> bool:
        return self.status in _ENDED

    @property
    def exit_status(self) -> int:
        """For the shell: 0, 1 where it failed, 130 where it was stopped."""
        return {"SUCCEEDED": 0, "STOPPED": 130}.get(self.status, 1)


class Jobs:
    """The jobs of one cluster.

    Args:
        address: of its job server, such as http://head:8265.
        say: called with a line for the user.

    Raises:
        UserError: nobody answers there, or not to us.
    """

    def __init__(self, address: str, say: Callable[[str], None] = lambda line: None) -> None:
        self.address, self._say = address, say
        if not address.startswith(("http://", "https://")):
            raise UserError(f"'{address}' is not the address of a job server: http://HEAD:8265, for example")
        with self._asking():
            from ray.job_submission import JobSubmissionClient

            self._client = JobSubmissionClient(address)

    def submit(
        self,
        study: Study,
        file: Path,
        *,
        with_code: bool = False,
        beside: Sequence[Path] = (),
        mlflow_uri: str | None = None,
    ) -> str:
        """Start a study; returns the submission's id.

        Args:
            study: as read from the file.
            file: the study file.
            with_code: send this installation's `tdmpc_ray` along, where the cluster has none or another one.
            beside: files and folders to send along, such as a module with tasks of yours.
            mlflow_uri: address of MLflow as the cluster sees it; None: the study's or the cluster's own.

        Raises:
            UserError: the cluster refuses it, or a file is missing.
        """
        name = new_name(study.name)
        sent = {_CODE: "yes" if with_code else "", _BESIDE: json.dumps([str(p.resolve()) for p in beside])}
        with tempfile.TemporaryDirectory() as folder:
            self._send(Path(folder), [file, *beside], with_code)
            call = f'tune "$HERE"/{shlex.quote(file.name)} --out {shlex.quote(name)}'
            return self._submit(name, call, folder, {_STUDY: study.name, _OUT: name, **sent}, mlflow_uri)

    def resume(
        self,
        job_id: str,
        *,
        with_code: bool = False,
        beside: Sequence[Path] = (),
        mlflow_uri: str | None = None,
        more: Sequence[str] = (),
        command: str = "resume",
    ) -> str:
        """Continue the study of a job that has ended, as another job; returns that one's id.

        What went along with it is sent again, from where it was. A head that was started anew has no record
        of its jobs; then the study is the one in the job's folder of results, and what is given goes along.

        Args:
            job_id: as `submit` returned it.
            with_code, beside, mlflow_uri: see `submit`.
            more: options of the command on the head, such as `--steps=900`.
            command: `resume`, or `sync`.

        Raises:
            UserError: there is no such job, it goes on still, or a file that went along is gone.
        """
        try:
            with self._asking(job_id):
                info = self._client.get_job_info(job_id)
        except UnknownJob:
            if (named := _ID.fullmatch(job_id)) is None:
                raise
            metadata = {_STUDY: named["study"], _OUT: named["out"], _CODE: "", _BESIDE: "[]"}
        else:
            metadata = dict(info.metadata or {})
            if _OUT not in metadata:
                raise UserError(f"{job_id} is no study of tdmpc-ray")
            if not _job(job_id, info).has_ended:
                raise UserError(f"{job_id} goes on still: there is nothing to {command}")
        paths = dict.fromkeys([*json.loads(metadata[_BESIDE]), *(str(path.resolve()) for path in beside)])
        with_code = with_code or bool(metadata[_CODE])
        metadata |= {_BESIDE: json.dumps([*paths]), _CODE: "yes" if with_code else ""}
        name = f"{metadata[_OUT]}-{_AGAIN[command]}-{uuid.uuid4().hex[:6]}"
        with tempfile.TemporaryDirectory() as folder:
            self._send(Path(folder), [*map(Path, paths)], with_code)
            call = shlex.join([command, metadata[_OUT], *more])
            return self._submit(name, call, folder, metadata, mlflow_uri)

    def _send(self, folder: Path, paths: Sequence[Path], with_code: bool) -> None:
        if line := stage(folder, paths, with_code):
            self._say(line)

    def _submit(
        self, name: str, call: str, folder: str, metadata: dict[str, str], mlflow_uri: str | None
    ) -> str:
        variables = {
            "RAY_JOB_STOP_SIGNAL": "SIGINT",  # `tune` saves its trials then
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
            "PYTHONUNBUFFERED": "1",
            JOB_ADDRESS: public_uri(self.address),
        }
        # Relative paths, such as that of MLflow's database, are those of the results: the working directory
        # ends with the job.
        place = (
            f"case {RESULTS} in *://*) echo 'error: TDMPC_RAY_RESULTS is no folder' >&2; exit 2;; esac; "
            f'HERE="$PWD"; mkdir -p {RESULTS} && cd {RESULTS} && export PYTHONPATH="$HERE:$PYTHONPATH"'
        )
        if mlflow_uri:  # wins over the study's own; by a variable, as others read commands
            call += ' --mlflow-uri "$MLFLOW_TRACKING_URI"'
            write_private(Path(folder) / _MLFLOW_FILE, mlflow_uri)
            place += f' && export MLFLOW_TRACKING_URI="$(cat "$HERE"/{_MLFLOW_FILE})"'
        job = {
            "entrypoint": f"{place} && exec python -m tdmpc_ray.cli {call}",
            "submission_id": name,
            "runtime_env": {"working_dir": folder, "env_vars": variables},
            "metadata": {**metadata, "tdmpc_ray": tdmpc_ray.__version__},
        }
        deadline = time.monotonic() + _START_S
        with self._asking():
            while True:
                try:
                    return self._client.submit_job(**job)
                except RuntimeError as error:
                    if "No available agent" not in str(error) or time.monotonic() > deadline:
                        raise
                    time.sleep(_POLL_S)  # the cluster is about to start

    def get(self, job_id: str) -> Job:
        """One job.

        Raises:
            UserError: there is none.
        """
        with self._asking(job_id):
            return _job(job_id, self._client.get_job_info(job_id))

    def all(self) -> list[Job]:
        """The studies among the cluster's jobs, oldest first."""
        with self._asking():
            found = [info for info in self._client.list_jobs() if _STUDY in (info.metadata or {})]
        return sorted((_job(info.submission_id, info) for info in found), key=lambda job: job.started or 0)

    def stop(self, job_id: str) -> None:
        """Ask a job to save its trials and end; does not wait for it.

        Raises:
            UserError: there is no such job.
        """
        with self._asking(job_id):
            self._client.stop_job(job_id)

    def logs(self, job_id: str) -> str:
        """What a job has printed so far."""
        with self._asking(job_id):
            return self._client.get_job_logs(job_id)

    def follow(self, job_id: str, write: Callable[[str], None]) -> Job:
        """Hand on what a job prints until it ends; returns it as it ended.

        A connection that is cut is made again, and nothing is handed on twice.

        Raises:
            UserError: there is no such job, or nobody has answered for `_GIVE_UP_S`.
        """
        self.get(job_id)
        log = Log(write)
        lost_at: float | None = None
        while True:
            log.num_read = 0
            try:
                job = self.get(job_id)
                with self._asking(job_id):
                    asyncio.run(log.read(self._client.tail_job_logs(job_id)))
                if job.has_ended:  # before all of its log was read
                    return job
                lost_at = None
            except Unwritable as error:
                raise error.__cause__ or error from None
            except NoAnswer:
                if lost_at is None or log.num_read:  # it had been made again
                    lost_at = time.monotonic()
                    self._say(f"lost the connection to {self.address}: trying again, {job_id} goes on")
                if time.monotonic() - lost_at >= _GIVE_UP_S:
                    raise
            time.sleep(_POLL_S)

    @contextlib.contextmanager
    def _asking(self, job_id: str = "") -> Iterator[None]:
        """Within, what the job server or the way to it does wrong is said in one line."""
        try:
            yield
        except (UserError, Unwritable):
            raise
        except (ConnectionError, OSError):
            raise NoAnswer(f"no Ray job server answers at {self.address}: is the cluster up?") from None
        except Exception as error:
            text = str(error)
            if is_cut(error):
                raise NoAnswer(f"the connection to {self.address} was cut: {reason(error)[:300]}") from None
            if "404" in text or "does not exist" in text:
                raise UnknownJob(f"{self.address} has no job '{job_id}': see `tdmpc-ray list`") from None
            if any(word in text for word in ("401", "403", "nauthenticated", "nauthorized")):
                raise UserError(
                    f"{self.address} refuses us: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's"
                ) from None
            raise UserError(f"{self.address}: {reason(error)[:300]}") from None


def _job(job_id: str, info: Any) -> Job:
    seconds = [None if time_ms is None else time_ms / 1000 for time_ms in (info.start_time, info.end_time)]
    study = (info.metadata or {}).get(_STUDY, "")
    message = (info.message or "").partition(", last available logs")[0]
    return Job(job_id, study, str(getattr(info.status, "value", info.status)), message, *seconds)
