"""Names and values that MLflow accepts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name

from tdmpc_ray.studies.tracking.naming import clean_metrics, metric_name, trial_label


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("eval/return", "eval/return"),
        ("agent[0]", "agent_0_"),
        ("/a//b/", "a/b"),
        ("../x", "_/x"),
        ("loss (total) %", "loss _total_ _"),
        ("", "_"),
        ("///", "_"),
        ("x" * 300, "x" * 250),
    ],
)
def test_bad_names_become_good_ones(name: str, expected: str) -> None:
    assert metric_name(name) == expected


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=300) | st.text(alphabet="./ ab\n", max_size=20))
def test_mlflow_accepts_every_name(name: str) -> None:
    _validate_metric_name(metric_name(name))
    assert len(metric_name(name)) <= 250


def test_values_that_are_not_finite_are_dropped_and_counted() -> None:
    report = {
        "a": 1,
        "b": float("nan"),
        "c": float("inf"),
        "d": -float("inf"),
        "e": "text",
        "f": None,
        "g": True,
    }
    kept, dropped = clean_metrics(report)
    assert kept == {"a": 1.0, "g": 1.0}
    assert dropped == 5


def test_names_that_become_the_same_stay_apart() -> None:
    kept, _ = clean_metrics({"q[0]": 1.0, "q(0)": 2.0})
    assert kept == {"q_0_": 1.0, "q_0__2": 2.0}


def test_trial_label_names_what_differs() -> None:
    params = {"model_size": "5", "seed": 0, "update.lr": 0.00123456}
    assert trial_label(params) == "size=5 seed=0 update.lr=0.001235"
