"""Signals within a study, and a Ray that does not start."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from rich.console import Console

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.run import cluster, interrupt
from tdmpc_ray.studies.run.runner import run_study


@pytest.fixture(autouse=True)
def _hangups() -> Iterator[None]:
    """As in a terminal, also where these tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_signals_are_handled_within_a_study_only() -> None:
    before = signal.getsignal(signal.SIGINT)
    left = signal.signal(signal.SIGUSR1, lambda *_: None)  # as an experiment of Tune leaves it
    with interrupt.graceful_stop() as request:
        signal.raise_signal(signal.SIGINT)
        assert request.signum == signal.SIGINT
        assert interrupt.stop_requested()
        with pytest.raises(KeyboardInterrupt):  # Tune's loop, which the second one would end, is not there
            signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGUSR1, left)
    assert signal.getsignal(signal.SIGINT) is before
    assert "TUNE_DISABLE_SIGINT_HANDLER" not in os.environ
    with interrupt.graceful_stop() as request:
        assert request.signum is None
        assert not interrupt.stop_requested()


def test_a_trial_that_does_not_save_is_not_waited_for_for_ever() -> None:
    said: list[str] = []
    saver = interrupt.SaveTrials(1000, say=said.append, grace_s=0.2)
    trials: list[Any] = [SimpleNamespace(trial_id=name, status="RUNNING") for name in ("a", "b")]
    ended: list[int] = []
    with interrupt.graceful_stop():
        saver.on_step_end(1, trials)
        assert said == []
        signal.signal(signal.SIGUSR1, lambda *_: ended.append(1))  # as Tune does
        interrupt.tune_loop_begins()
        signal.raise_signal(signal.SIGTERM)
        saver.on_step_end(2, trials)
        saver.on_trial_save(2, trials, trials[0])
        saver.on_step_end(3, trials)
        assert ended == []
        time.sleep(0.25)
        saver.on_step_end(4, trials)
    assert ended == [1]
    assert said[-1] == "1 trial did not save within 0 s"


def test_a_trial_is_saved_while_it_clones_and_when_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    saver, saved = interrupt.SaveTrials(1000), []
    trial: Any = SimpleNamespace(trial_id="a")
    monkeypatch.setattr(interrupt, "stop_requested", lambda: False)
    for now, left, steps in ((0, 900, 0), (50, 600, 0), (70, 500, 0), (80, 400, 0), (90, 0, 0), (95, 0, 500)):
        monkeypatch.setattr(interrupt.time, "monotonic", lambda now=now: float(now))
        result: dict[str, Any] = {"env_steps": steps, "cloning": left}
        saver.on_trial_result(1, [], trial, result)
        if result.get("should_checkpoint"):
            saved.append(now)
    assert saved == [70, 90]


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_each_signal_has_trials_saved_first(number: int) -> None:
    ended: list[int] = []
    with interrupt.graceful_stop() as request:
        signal.signal(signal.SIGUSR1, lambda *_: ended.append(1))  # as Tune does
        interrupt.tune_loop_begins()
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGHUP)  # a warning that comes later, or again, asks for no more
        assert (request.signum, interrupt.stop_requested(), ended) == (number, True, [])
        signal.raise_signal(signal.SIGTERM)
        assert ended == [1], "at the second one, Tune ends its loop at once"


def test_what_ignores_a_terminal_that_goes_keeps_doing_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with interrupt.graceful_stop():
            signal.raise_signal(signal.SIGHUP)
            assert not interrupt.stop_requested()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_has_gone_is_written_to_no_more() -> None:
    ours, theirs = pty.openpty()
    code = (
        "import os, signal, sys; from tdmpc_ray.studies.run import interrupt\n"
        "with interrupt.graceful_stop():\n"
        "    os.read(0, 1); signal.raise_signal(signal.SIGHUP); print('saving', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=theirs)
    os.close(theirs)
    os.close(ours)
    process.communicate(b"x")
    assert process.returncode == 0


def test_processes_of_ray_live_through_a_warning() -> None:
    wait = "import signal; signal.raise_signal(signal.SIGUSR1); signal.raise_signal(signal.SIGXCPU)"
    before = signal.getsignal(signal.SIGUSR1)
    with interrupt.warnings_ignored():
        process = subprocess.Popen([sys.executable, "-c", wait])
    assert process.wait() == 0
    assert signal.getsignal(signal.SIGUSR1) is before


def is_training(out: Path) -> bool:
    """Whether the process of a trial of this study makes an iteration; its working folder has its name."""
    trials = {path.name for path in out.glob("tune/size*")}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink().name in trials:
                return b"ray::TDMPC2.train" in (process / "cmdline").read_bytes()
    return False


@pytest.mark.usefixtures("local_ray")
def test_a_stop_in_an_evaluation_saves_at_once(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace, tiny_overrides: dict[str, object]
) -> None:
    study = make_study(
        {
            "name": "long",
            "task": "gym:Pendulum-v1",
            "model_sizes": ["tiny"],
            "steps": 400,
            "set": {**tiny_overrides, "data.seed_steps": 100},
            "evaluation": {"every": 100, "episodes": 100_000},
            "tracking": {"uri": store, "experiment": "exp"},
        }
    )

    def warn() -> None:
        while not is_training(tmp_path / "out"):
            time.sleep(0.1)
        time.sleep(3)  # sooner or later: the first evaluation would take a day
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=warn)
    thread.start()
    printed = io.StringIO()
    result = run_study(study, tmp_path / "out", console=Console(file=printed, width=200))
    thread.join()
    assert (result.signum, result.exit_status) == (signal.SIGUSR1, 128 + signal.SIGUSR1)
    [checkpoint] = result.checkpoints.values()
    assert (checkpoint / "manifest.json").is_file()
    assert "did not save within" not in printed.getvalue()
    assert "interrupted: 1 of 1 trials have a checkpoint; resume with: " in printed.getvalue()
    assert {run.info.status for run in mlflow_read.runs(store, "exp").values()} == {"KILLED"}


def test_ray_that_does_not_start_in_time_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(**options: object) -> None:
        raise Exception("The current node timed out during startup.\nThis could happen because")

    monkeypatch.setattr(ray, "init", late)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    expected = (
        r"Ray did not start \(The current node timed out during startup\.\): on a busy machine, try again"
    )
    with pytest.raises(UserError, match=expected), cluster.ray_session({"CPU": 1}, print):
        pass
