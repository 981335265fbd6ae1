"""Ends calls of environments that take too long.

Python code that sleeps, computes or waits for a socket is interrupted where it is: `StepTimeout` is raised in
it. C code cannot be, and only the process can end: after a time of grace the watchdog says so, and ends the
process where its owner has allowed that (`allow_exit`).
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType

logger = logging.getLogger(__name__)

GRACE_S = 10.0
_POLL_S = 0.2
_AGAIN_S = 1.0
# Ray, Tune and pytest-timeout use SIGINT, SIGTERM, SIGUSR1 and SIGALRM.
_SIGNAL = signal.SIGUSR2


class StepTimeout(BaseException):
    """A call took too long. No `Exception`, so that an environment that catches these does not keep it."""


class watched:
    """Within, the calling thread has `limit` seconds.

    Args:
        what: the call, for messages.
        limit: seconds; None or 0: any time.

    Raises:
        StepTimeout: they are over; in the main thread alone, as Python has no way to interrupt another.
    """

    __slots__ = ("interrupt_at", "limit", "started", "what")

    def __init__(self, what: str, limit: float | None) -> None:
        self.what, self.limit = what, limit or 0.0

    def __enter__(self) -> None:
        if self.limit:
            _watch(self.limit)
            self.started = time.monotonic()
            self.interrupt_at = self.started + self.limit
            _calls[threading.get_ident()] = self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _calls.pop(threading.get_ident(), None)


_calls: dict[int, watched] = {}  # by thread
_running: _Watchdog | None = None
_exit_reason: Path | None = None
_longest = 0.0  # of all limits


def allow_exit(reason_file: Path) -> None:
    """Let the watchdog end this process where nothing else helps.

    Args:
        reason_file: file that it writes the reason to, in one line; of a call that held the interpreter's
            lock, Python's traceback.
    """
    global _exit_reason
    _exit_reason = reason_file


def _watch(limit: float) -> None:
    global _running, _longest
    _longest = max(_longest, limit)
    if _running is None or _running.pid != os.getpid():  # threads do not survive a fork
        _calls.clear()
        _running = _Watchdog()


class _Watchdog(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="tdmpc_ray watchdog", daemon=True)
        self.pid = os.getpid()
        self._main = threading.main_thread().ident
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._can_interrupt = in_main_thread and signal.getsignal(_SIGNAL) in (signal.SIG_DFL, _interrupt)
        if self._can_interrupt:
            signal.signal(_SIGNAL, _interrupt)
        self._complained: watched | None = None
        self._armed_at = 0.0
        self._arm(time.monotonic())  # a first call that hangs with the lock lets no thread begin
        self.start()

    def run(self) -> None:
        while True:
            time.sleep(_POLL_S)
            now = time.monotonic()
            for thread, call in list(_calls.items()):
                if thread == self._main and self._can_interrupt and now > call.interrupt_at:
                    signal.pthread_kill(thread, _SIGNAL)
                if now > call.started + call.limit + GRACE_S:
                    self._give_up(call, now - call.started)
            self._arm(now)

    def _arm(self, now: float) -> None:
        if _exit_reason is not None and now > self._armed_at + _AGAIN_S:
            self._armed_at = now
            _exit_after(_longest + GRACE_S, _exit_reason)

    def _give_up(self, call: watched, seconds: float) -> None:
        line = f"{call.what}: hung for {seconds:.0f} s in code that cannot be interrupted"
        if _exit_reason is not None:
            logger.error("%s: this process ends", line)
            _exit_reason.write_text(line + "\n", encoding="utf-8")
            os._exit(1)
        if call is not self._complained:
            self._complained = call
            logger.error("%s, in a process that cannot be replaced: waiting on", line)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Runs in the main thread."""
    call = _calls.get(threading.get_ident())
    leaving = frame is not None and frame.f_code is watched.__exit__.__code__
    if call is not None and not leaving and time.monotonic() > call.interrupt_at:
        call.interrupt_at += _AGAIN_S  # an environment may catch even this
        raise StepTimeout(f"hung for {call.limit:g} s")


_dump_file: dict[Path, object] = {}


def _exit_after(seconds: float, reason_file: Path) -> None:
    """End the process unless this is called again before, which a call that holds Python's lock prevents.

    What ends it is a thread that needs no interpreter. Honest work may hold the lock: `seconds` are many.
    """
    if reason_file not in _dump_file:
        _dump_file[reason_file] = reason_file.open("w", encoding="utf-8")
    faulthandler.dump_traceback_later(seconds, exit=True, file=_dump_file[reason_file])  # type: ignore[arg-type]
