"""The thread that draws the next batch: same batches, in the order that memory and random numbers need."""

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from test_rllib_update_loop import IMAGES, STATE, make_loop

from tdmpc_ray.core.batch import Batch
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.learning import updates as update_loop
from tdmpc_ray.rllib.learning.updates import UpdateLoop

NAMES = ("obs", "action", "reward", "terminated", "start")


def watch_batches(monkeypatch: pytest.MonkeyPatch, loop: UpdateLoop) -> list[Batch]:
    """The batches that updates are taken on, which are left out."""
    seen: list[Batch] = []
    monkeypatch.setattr(loop._updater, "step", lambda batch, noise: seen.append(batch) or {})
    return seen


@pytest.mark.parametrize("shown", [0, 2])
@pytest.mark.parametrize("shape", [STATE, IMAGES])
def test_batches_are_those_of_a_loop_without_it(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], shown: int
) -> None:
    seen, draws = [], []
    for ahead in (False, True):
        loop, _ = make_loop(shape)
        loop._draws_ahead, loop._num_shown = ahead, shown
        if shown:
            loop._demonstrations = make_loop(shape)[0]._replay
        seen.append(watch_batches(monkeypatch, loop))
        for num_updates in (4, 1, 2):
            loop.run(num_updates)
            draws.append(loop._streams.numpy.bit_generator.state)
    assert draws[:3] == draws[3:]  # nothing is drawn that the call does not use
    assert [len(batches) for batches in seen] == [7, 7]
    size = loop._batch_size
    for without, with_it in zip(*seen, strict=True):
        assert with_it.obs.shape == (4, size, *shape)
        for name in NAMES:
            assert torch.equal(getattr(without, name), getattr(with_it, name)), name


def test_memory_is_drawn_into_again_when_its_copy_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of batch i + 2, the draw waits for the fence behind the copy of batch i."""
    loop, _ = make_loop()
    loop._draws_ahead, events, fences = True, [], []

    class Fence:
        def __init__(self, device: torch.device) -> None:
            self.number = len(fences)
            fences.append(self)

        def wait(self) -> None:
            events.append(("copied", self.number))

    sample = loop._replay.sample

    def drawn(*args: Any) -> Batch:
        events.append(("drawn", threading.current_thread() is threading.main_thread()))
        return sample(*args)

    monkeypatch.setattr(update_loop, "Fence", Fence)
    monkeypatch.setattr(loop._replay, "sample", drawn)
    watch_batches(monkeypatch, loop)
    loop.run(4)
    draw = ("drawn", False)
    assert events == [draw, draw, ("copied", 0), draw, ("copied", 1), draw]


@pytest.mark.parametrize("part", ["draw", "step"])
def test_errors_end_the_call_and_the_thread(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    loop, _ = make_loop()
    loop._draws_ahead, calls = True, []

    def fails(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise UserError("the third is no good")
        return sample(*args) if part == "draw" else {}

    sample = loop._replay.sample
    seen = watch_batches(monkeypatch, loop)
    if part == "draw":
        monkeypatch.setattr(loop._replay, "sample", fails)
    else:
        monkeypatch.setattr(loop._updater, "step", fails)
    threads = threading.active_count()
    with pytest.raises(UserError, match="the third is no good"):
        loop.run(5)
    assert (len(calls), len(seen)) == (3, 2 if part == "draw" else 0)
    assert threading.active_count() == threads


@pytest.mark.parametrize(("ahead", "waits"), [(False, 0.4), (True, 0.1)])
def test_it_counts_what_updates_wait_for_batches(
    monkeypatch: pytest.MonkeyPatch, ahead: bool, waits: float
) -> None:
    """Four draws of 0.1 s each; steps take longer, and hide all draws but the first."""
    loop, _ = make_loop()
    loop._draws_ahead, sample = ahead, loop._replay.sample

    def slow(*args: Any) -> Batch:
        time.sleep(0.1)
        return sample(*args)

    monkeypatch.setattr(loop._replay, "sample", slow)
    monkeypatch.setattr(loop._updater, "step", lambda batch, noise: time.sleep(0.3) or {})
    loop.run(4)
    assert waits <= loop.take_waited_s() < waits + 0.15
    assert loop.take_waited_s() == 0


def test_only_a_gpu_and_a_uniform_replay_draw_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    class OfGpu(torch.Generator):
        device = torch.device("cuda")

    pinned: list[bool] = []
    for alpha, ahead in ((0.0, True), (0.6, False)):
        loop, module = make_loop(**{"data.priority_alpha": alpha})
        assert not loop._draws_ahead
        streams = loop._streams
        monkeypatch.setattr(loop._replay, "sample", lambda size, rng, pin_memory: pinned.append(pin_memory))
        loop._draw(0)
        streams.torch = OfGpu()
        again = UpdateLoop(module, loop._updater, loop._replay, None, streams, 8, None)
        assert again._draws_ahead == ahead
        again._draw(0)
    assert pinned == [False, True] * 2


def test_batches_share_no_memory() -> None:
    loop, _ = make_loop(IMAGES)
    rng, replay = np.random.default_rng(0), loop._replay
    held = replay.sample(4, rng)
    before = held.obs.clone()
    other = replay.sample(4, rng)
    assert torch.equal(held.obs, before)
    assert not torch.equal(other.obs, before)
