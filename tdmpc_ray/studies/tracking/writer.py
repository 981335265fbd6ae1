"""A background thread that brings operations to MLflow from a journal on disk.

The caller's `put` appends to the journal and returns, so a process that is killed loses nothing. The thread
delivers from it in order and takes it away when all has arrived; while MLflow is away it grows, and is tried
again every few seconds.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from pathlib import Path

from tdmpc_ray.studies.tracking.client import one_line
from tdmpc_ray.studies.tracking.ops import Op, Spool, coalesce, entries
from tdmpc_ray.studies.tracking.sender import OpSender
from tdmpc_ray.studies.tracking.spooled import REJECTED_FILE, SPOOL_FILE

logger = logging.getLogger("tdmpc_ray.tracking")

_PATIENCE = 5  # attempts at an operation that fails while MLflow answers others


class RunWriter:
    """Writes operations on runs of one experiment from one background thread.

    Args:
        uri: address of MLflow.
        experiment: name of the experiment; created at the first operation.
        spool_dir: folder of the journal; what lies there is delivered first.
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
        self._experiment = experiment
        self._flush_s = flush_s
        self._retry_s = retry_s
        self._journal = Spool(spool_dir / SPOOL_FILE)
        self._rejected = Spool(spool_dir / REJECTED_FILE)
        self._sender = OpSender(uri, dict(run_ids or {}), patience=_PATIENCE)
        self._unwritten: deque[Op] = deque()  # what the disk has not taken; after the journal's
        self._lock = threading.Lock()  # of the journal and what is unwritten
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._epoch = 0  # a thread whose epoch has passed was given up and must not touch the journal
        self._offset = 0  # of the journal: what lies before it has been delivered
        self._retry_at = 0.0
        self._down_reason: str | None = None
        self._is_disk_full = False
        self.rejected = 0  # entries that MLflow refused, kept beside the journal

    @property
    def run_ids(self) -> dict[str, str]:
        """Known run keys to MLflow's run ids."""
        return dict(self._sender.run_ids)

    @property
    def spool(self) -> Path | None:
        """The journal where it holds operations that MLflow does not have yet, or None."""
        return self._journal.path if self._journal else None

    def put(self, *ops: Op) -> None:
        """Note operations for delivery; returns at once."""
        with self._lock:
            self._sender.fresh |= {op["run"] for op in ops if op.get("fresh")}
            self._unwritten.extend({"experiment": self._experiment, **op} for op in ops)
            self._write()
            if self._thread is None or not self._thread.is_alive():
                self._stop.clear()
                self._thread = threading.Thread(
                    target=self._run, args=(self._epoch,), daemon=True, name="mlflow-writer"
                )
                self._thread.start()

    def close(self, timeout_s: float) -> Path | None:
        """Deliver what is there, for `timeout_s` seconds at most.

        Returns:
            The journal if something is left in it, else None. `put` works again after it.
        """
        thread = self._thread
        if thread is not None:
            self._stop.set()
            thread.join(timeout_s)
        with self._lock:
            self._epoch += 1
            self._thread = None
            if not self._write():
                logger.warning("%d entries for MLflow are lost with this process", len(self._unwritten))
        return self.spool

    def find(self, run: str) -> str | None:
        """MLflow's id of the run with our key; asks MLflow if it is not known yet, None if it has none."""
        with contextlib.suppress(Exception):
            return self._sender.find(self._experiment, run)
        return None

    def _write(self) -> bool:
        """Bring what is unwritten to the journal; what the disk does not take stays in memory."""
        try:
            self._journal.append(self._unwritten)
        except OSError as error:
            if not self._is_disk_full:
                self._is_disk_full = True
                logger.warning(
                    "cannot write %s (%s): what MLflow has not got waits in memory",
                    self._journal.path,
                    one_line(error),
                )
            return False
        self._unwritten.clear()
        self._is_disk_full = False
        return True

    def _run(self, epoch: int) -> None:
        while True:
            stopping = self._stop.wait(self._flush_s)
            if stopping or time.monotonic() >= self._retry_at:
                try:
                    self._deliver(epoch)
                except Exception as error:  # nobody starts this thread again while a study runs
                    logger.warning("tracking: %s: %s; trying again", type(error).__name__, one_line(error))
                    self._retry_at = time.monotonic() + self._retry_s
            if stopping or epoch != self._epoch:
                return

    def _deliver(self, epoch: int) -> None:
        """Send the journal from where it was left, then what is unwritten, until nothing is left."""
        while True:
            with self._lock:
                if epoch != self._epoch:
                    return
                ops, end = self._journal.read(self._offset)
                in_memory = not ops
                if in_memory:
                    self._journal.clear()
                    self._offset = 0
                    ops = list(self._unwritten)
            if not ops:
                return
            for op in coalesce(ops):
                # A part that fails in the middle is sent again as a whole, which changes nothing.
                if epoch != self._epoch or not self._send(op, epoch):
                    return
            if self._down_reason is not None:
                self._down_reason = None
                logger.warning("MLflow answers again: delivering what has waited")
            with self._lock:
                if epoch != self._epoch:
                    return
                if not in_memory:
                    self._offset = end
                elif self._unwritten and self._unwritten[0] is ops[0]:  # not in the journal since
                    for _ in ops:
                        self._unwritten.popleft()

    def _send(self, op: Op, epoch: int) -> bool:
        try:
            refused = self._sender.deliver(op["experiment"], op)
        except Exception as error:
            if epoch != self._epoch:
                return False  # after `close` there is nothing that goes on
            self._retry_at = time.monotonic() + self._retry_s
            if self._down_reason is None:
                self._down_reason = one_line(error)
                logger.warning(
                    "MLflow does not answer (%s): the study goes on, its metrics wait in %s",
                    self._down_reason,
                    self._journal.path,
                )
            return False
        if refused:
            if not self.rejected:
                logger.warning(
                    "MLflow refused an entry (%s): kept in %s", refused[0]["reason"], self._rejected.path
                )
            self.rejected += sum(map(entries, refused))
            self._keep(refused)
        return True

    def _keep(self, refused: list[Op]) -> None:
        try:
            self._rejected.append(refused)
        except OSError as error:
            logger.warning(
                "refused entries are lost: cannot write %s (%s)", self._rejected.path, one_line(error)
            )
