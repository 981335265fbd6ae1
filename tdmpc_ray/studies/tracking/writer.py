"""A background thread that brings operations to MLflow, and keeps them on disk while MLflow is away.

The caller's `put` never waits. While MLflow answers, operations go out in batches. At the first failure
they go, in order, to a spool file (so a killed process loses nothing either) and the file is tried again
every few seconds; live operations follow only when the file is empty, so the order never changes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from tdmpc_ray.studies.tracking.client import one_line
from tdmpc_ray.studies.tracking.ops import Op, Spool, coalesce
from tdmpc_ray.studies.tracking.sender import OpSender
from tdmpc_ray.studies.tracking.spooled import REJECTED_FILE, SPOOL_FILE

logger = logging.getLogger("tdmpc_ray.tracking")


class RunWriter:
    """Writes operations on runs of one experiment from one background thread.

    Args:
        uri: address of MLflow.
        experiment: name of the experiment; created at the first operation.
        spool_dir: folder for operations that could not be delivered; what lies there is delivered first.
        run_ids: run keys to MLflow's run ids, as far as known.
        flush_s: seconds between two batches.
        retry_s: seconds between two attempts while MLflow is away.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        spool_dir: Path,
        run_ids: dict[str, str] | None = None,
        *,
        flush_s: float = 1.0,
        retry_s: float = 5.0,
    ) -> None:
        self._uri = uri
        self._experiment = experiment
        self._flush_s = flush_s
        self._retry_s = retry_s
        self._spool = Spool(spool_dir / SPOOL_FILE)
        self._rejected = Spool(spool_dir / REJECTED_FILE)
        self._sender = OpSender(uri, dict(run_ids or {}))
        self._queue: deque[Op] = deque()
        self._in_flight: list[Op] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._epoch = 0  # a thread whose epoch has passed was given up and must not touch the spool
        self._offset = 0
        self._retry_at = 0.0
        self._down_reason: str | None = None
        self.rejected = 0  # operations that MLflow refused, kept beside the spool

    @property
    def run_ids(self) -> dict[str, str]:
        """Known run keys to MLflow's run ids."""
        return dict(self._sender.run_ids)

    @property
    def spool(self) -> Path | None:
        """The file with operations that MLflow does not have yet, or None."""
        return self._spool.path if self._spool else None

    def put(self, *ops: Op) -> None:
        """Queue operations; returns at once."""
        with self._lock:
            self._queue.extend(ops)
            if self._thread is None or not self._thread.is_alive():
                self._stop.clear()
                self._thread = threading.Thread(
                    target=self._run, args=(self._epoch,), daemon=True, name="mlflow-writer"
                )
                self._thread.start()

    def close(self, timeout_s: float) -> Path | None:
        """Deliver what is queued; after `timeout_s` seconds the rest goes to the spool.

        Returns:
            The spool file if something is left in it, else None. `put` works again after it.
        """
        thread = self._thread
        if thread is not None:
            self._stop.set()
            thread.join(timeout_s)
        with self._lock:
            self._epoch += 1
            self._thread = None
            self._keep([*self._in_flight, *self._queue])
            self._in_flight = []
            self._queue.clear()
        return self.spool

    def _run(self, epoch: int) -> None:
        while True:
            stopping = self._stop.wait(self._flush_s)
            with self._lock:
                if epoch != self._epoch:
                    return
                self._in_flight = list(self._queue)
                self._queue.clear()
            try:
                if self._spool:
                    self._spool_in_flight(epoch)
                    if stopping or time.monotonic() >= self._retry_at:
                        self._drain(epoch)
                else:
                    self._deliver(epoch)
            except Exception as error:  # nobody starts this thread again while a study runs
                logger.warning("tracking: %s: %s; trying again", type(error).__name__, one_line(error))
                self._retry_at = time.monotonic() + self._retry_s
                self._spool_in_flight(epoch)
            with self._lock:
                if epoch != self._epoch or (stopping and not self._queue):
                    return

    def _deliver(self, epoch: int) -> None:
        ops = coalesce(self._in_flight)
        for index, op in enumerate(ops):
            with self._lock:
                if epoch != self._epoch:
                    return
                self._in_flight = ops[index:]
            if not self._send(op):
                self._spool_in_flight(epoch)
                return
        with self._lock:
            if epoch == self._epoch:
                self._in_flight = []

    def _drain(self, epoch: int) -> None:
        ops, end = self._spool.read(self._offset)
        while ops:
            for op in coalesce(ops):
                # A chunk that fails in the middle is sent again as a whole, which changes nothing.
                if epoch != self._epoch or not self._send(op):
                    return
            self._offset = end
            ops, end = self._spool.read(self._offset)
        with self._lock:
            if epoch == self._epoch:
                self._spool.clear()
                self._offset = 0

    def _send(self, op: Op) -> bool:
        try:
            refused = self._sender.deliver(op.get("experiment", self._experiment), op)
        except Exception as error:
            self._retry_at = time.monotonic() + self._retry_s
            if self._down_reason is None:
                self._down_reason = one_line(error)
                logger.warning(
                    "MLflow does not answer (%s): the study goes on, its metrics wait in %s",
                    self._down_reason,
                    self._spool.path,
                )
            return False
        if self._down_reason is not None:
            self._down_reason = None
            logger.warning("MLflow answers again: delivering what has waited")
        if refused:
            if not self.rejected:
                logger.warning(
                    "MLflow refused an entry (%s): kept in %s", refused[0]["reason"], self._rejected.path
                )
            self.rejected += len(refused)
            self._append(self._rejected, refused)
        return True

    def _spool_in_flight(self, epoch: int) -> None:
        with self._lock:
            if epoch == self._epoch:
                self._keep(self._in_flight)
                self._in_flight = []

    def _keep(self, ops: Iterable[Op]) -> None:
        self._append(self._spool, ({"experiment": self._experiment, **op} for op in ops))

    def _append(self, spool: Spool, ops: Iterable[Op]) -> None:
        try:
            spool.append(ops)
        except OSError as error:
            logger.warning("metrics are lost: cannot write %s (%s)", spool.path, one_line(error))

    def find(self, run: str) -> str | None:
        """MLflow's id of the run with our key; asks MLflow if it is not known yet, None if it has none."""
        with contextlib.suppress(Exception):
            return self._sender.find(self._experiment, run)
        return None
