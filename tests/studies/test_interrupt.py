"""Signals within a study, and a Ray that does not start."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.run import cluster, interrupt


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
        signal.raise_signal(signal.SIGTERM)
        saver.on_step_end(2, trials)
        saver.on_trial_save(2, trials, trials[0])
        saver.on_step_end(3, trials)
        assert ended == []
        time.sleep(0.25)
        saver.on_step_end(4, trials)
    assert ended == [1]
    assert said[-1] == "1 trial did not save within 0 s"


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
