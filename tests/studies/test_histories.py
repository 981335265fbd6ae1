"""Histories of many runs from a server, which leaves out without a word what is too much at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tdmpc_ray.studies.results import histories
from tdmpc_ray.studies.results.histories import Point, read_histories


def test_what_a_server_would_leave_out_is_asked_for_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "_MAX_POINTS", 10)
    monkeypatch.setattr(histories, "_PER_REQUEST", 4)
    values = {f"r{n}": [Point(n, step, float(step)) for step in range(4)] for n in range(5)}
    values["r2"] = [Point(2, step, 1.0) for step in range(30)]  # more than the server gives for one run
    asked: list[int] = []

    def ask(store: Any, ids: list[str], metric: str) -> list[tuple[str, Point]]:
        assert metric == "m"
        asked.append(len(ids))
        return [(run_id, point) for run_id in ids for point in values[run_id]][:10]

    monkeypatch.setattr(histories, "_ask", ask)
    client = SimpleNamespace(
        _tracking_client=SimpleNamespace(store=object()),
        get_metric_history=lambda run_id, metric: values[run_id],
    )
    found = read_histories(client, [*values, "r0"], "m")
    assert found == values
    assert max(asked) <= 4
