"""What a server keeps of its clients, without the server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from agents import random_checkpoint

from tdmpc_ray.core.saved_agent import read_agent
from tdmpc_ray.errors import UserError
from tdmpc_ray.serving.sessions import BatchPlanner, Session, Sessions, to_the_end
from tdmpc_ray.studies.models.model_files import write_slim


def test_sessions_are_forgotten() -> None:
    now = [0.0]
    sessions = Sessions(limit=2, idle_s=10, clock=lambda: now[0])
    first = sessions.get("a")
    now[0] = 5
    sessions.get("b")
    assert sessions.get("a") is first
    sessions.get("c")  # b was used least recently
    assert len(sessions) == 2
    assert sessions.get("a") is first
    assert sessions.active() == 2
    now[0] = 6.5
    assert sessions.active() == 0
    now[0] = 15.1
    assert sessions.get("a") is not first
    assert len(sessions) == 1
    assert (sessions.end("a"), sessions.end("a")) == (True, False)


def test_a_session_stays_locked_until_the_plan_of_one_who_left_is_made() -> None:
    session, planned = Session(), []

    async def plan() -> None:
        assert session.lock.locked()
        await asyncio.sleep(0.05)
        planned.append(session.lock.locked())

    async def ask() -> None:
        async with session.lock:
            await to_the_end(plan())

    async def leave_and_come_back() -> None:
        first = asyncio.ensure_future(ask())
        await asyncio.sleep(0.01)
        first.cancel()
        second = asyncio.ensure_future(ask())
        with pytest.raises(asyncio.CancelledError):
            await first
        await second

    asyncio.run(leave_and_come_back())
    assert planned == [True, True]


def test_batches_that_are_compiled_are_filled_up(tmp_path: Path) -> None:
    write_slim(
        random_checkpoint(tmp_path / "agent", "reacher-easy+walker-walk", {"planner.iterations": 1}), tmp_path
    )
    settings = {"planner.compile": "always"}
    planner = BatchPlanner(read_agent(tmp_path, settings=settings), max_batch=6)
    assert [planner._size(num) for num in range(1, 7)] == [1, 2, 4, 4, 6, 6]
    plain = BatchPlanner(read_agent(tmp_path), max_batch=6)
    assert [plain._size(num) for num in range(1, 7)] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(UserError, match="obs has 1 numbers, walker-walk needs 24 numbers"):
        plain.check([0.0], 1)
    sessions = [Sessions(9, 9).get("") for _ in range(3)]
    for session in sessions:
        session.task_id = 0
    plain._fills_up = True
    decided = plain([(session, torch.zeros(24)) for session in sessions])
    assert [d.batch for d in decided] == [3, 3, 3]
    for session in sessions:
        assert session.prev_mean is not None
        own = session.prev_mean.numel() * session.prev_mean.element_size()
        assert session.prev_mean.untyped_storage().nbytes() == own  # not the whole batch's
