"""Calls to learners in processes of their own: one that hangs is given up, one that is slow is not."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.rllib.loop import learner_link
from tdmpc_ray.rllib.loop.learner_link import LearnerLink


class Group:
    """As much of RLlib's learner group as a link needs."""

    is_local = False

    def __init__(self, actors: Sequence[Any]) -> None:
        self._worker_manager = SimpleNamespace(actors=lambda: dict(enumerate(actors)))
        self._num = len(actors)

    def __len__(self) -> int:
        return self._num


class Clock:
    """Learners that answer one call after the other, in a time of the test's own."""

    exceptions = ray.exceptions

    def __init__(self, seconds: Sequence[float]) -> None:
        self.now, self.done_at, self.killed = 0.0, 0.0, 0
        self._seconds = list(seconds)

    def monotonic(self) -> float:
        return self.now

    def remote(self, call: Any) -> float:
        """The time of the answer stands for its reference."""
        self.done_at = max(self.done_at, self.now) + self._seconds.pop(0)
        return self.done_at

    def wait(self, refs: list[float], num_returns: int, timeout: float | None) -> tuple[list[float], None]:
        until = math.inf if timeout is None else self.now + timeout
        self.now = min(max(min(refs), self.now), until)
        return [ref for ref in refs if ref <= self.now][:num_returns], None

    def get(self, ref: float) -> float:
        return ref

    def kill(self, actor: Any) -> None:
        self.killed += 1


def linked(monkeypatch: pytest.MonkeyPatch, seconds: Sequence[float]) -> tuple[LearnerLink, Clock]:
    clock = Clock(seconds)
    monkeypatch.setattr(learner_link, "time", clock)
    monkeypatch.setattr(learner_link, "ray", clock)
    actor = SimpleNamespace(apply=clock)
    return LearnerLink(Group([actor]), timeout_s=100), clock


def method(learner: Any) -> None:
    raise NotImplementedError


def test_learners_that_answer_one_call_after_the_other_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link, clock = linked(monkeypatch, [90, 90, 90, 90])
    link.start(method, [{}])
    link.start(method, [{}])
    assert link.call(method) == 270  # 270 s after it was sent, but 90 after the last answer
    assert link.ready() == [[90], [180]]
    clock.now = 10_000  # nobody has asked for anything
    assert link.call(method) == 10_090
    assert not clock.killed


@pytest.mark.parametrize("ask", ["call", "ready", "settle", "look"])
def test_a_learner_that_does_not_answer_is_given_up(ask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    link, clock = linked(monkeypatch, [50, math.inf, 1])
    link.start(method, [{}])
    link.start(method, [{}])
    clock.now = 60
    assert link.ready() == [[50]]
    clock.now = 159
    assert link.ready() == []
    ways: dict[str, Any] = {
        "call": lambda: link.call(method),
        "ready": lambda: link.ready(wait=True),
        "settle": link.settle,
        "look": lambda: [setattr(clock, "now", 160), link.ready()],
    }
    with pytest.raises(RuntimeError, match=r"not answered for 100 s: .* raise learner_timeout_s"):
        ways[ask]()
    assert (clock.now, clock.killed) == (160, 1)


@pytest.mark.usefixtures("local_ray")
def test_its_process_ends() -> None:
    class Sleeper:
        def apply(self, call: Any) -> Any:
            time.sleep(60)

    actor = ray.remote(num_cpus=0)(Sleeper).remote()
    with pytest.raises(RuntimeError, match="not answered for 1 s"):
        LearnerLink(Group([actor]), timeout_s=1).call(method)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.apply.remote(None))


def test_the_limit_is_a_number_of_seconds_or_none(tiny_overrides: dict[str, Any]) -> None:
    config = TDMPC2Config().environment("walker-walk").training(model_size="tiny", overrides=tiny_overrides)
    assert config.learner_timeout_s == 3600
    for value in (None, 0, 0.5):
        config.copy().fault_tolerance(learner_timeout_s=value).validate()
    with pytest.raises(UserError, match="learner_timeout_s must be a number of seconds, or None, not -1"):
        config.copy().fault_tolerance(learner_timeout_s=-1).validate()
