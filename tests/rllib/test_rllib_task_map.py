"""Tasks on a plane."""

import math

import pytest
import torch

from tdmpc_ray.rllib.metrics.task_map import task_map


def test_distances_of_a_flat_set_are_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    flat, tasks = torch.randn(5, 2, generator=generator), [f"task-{number}" for number in range(5)]
    turned = flat @ torch.linalg.qr(torch.randn(16, 16, generator=generator))[0][:2] + 3.0
    found = task_map(turned, tasks)
    assert found["embedding/shown"] == pytest.approx(1.0)
    for one in range(5):
        for other in range(one):
            axes = ("x", "y")
            at = [[found[f"embedding/{tasks[task]}/{axis}"] for axis in axes] for task in (one, other)]
            assert math.dist(*at) == pytest.approx(float((flat[one] - flat[other]).norm()), rel=1e-4)
    assert found["embedding/task-0/x"] >= 0 <= found["embedding/task-0/y"]


def test_of_what_does_not_fit_a_share_is_shown() -> None:
    found = task_map(torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5])), list("abcd"))
    assert 0.7 < found["embedding/shown"] < 0.99


def test_two_tasks_lie_on_a_line_and_equal_ones_on_a_point() -> None:
    two = task_map(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), ["a", "b"])
    assert two["embedding/a/x"] == pytest.approx(-two["embedding/b/x"])
    assert two["embedding/a/y"] == pytest.approx(0.0, abs=1e-6)
    equal = task_map(torch.ones(3, 4), ["a", "b", "c"])
    assert equal["embedding/shown"] == 1.0
    assert equal["embedding/c/x"] == pytest.approx(0.0, abs=1e-6)
