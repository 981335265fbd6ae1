"""Published curves, and a study's curves over them."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import matplotlib.image
import pandas as pd
import pytest
from rich.console import Console

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.results.compare import compare
from tdmpc_ray.studies.results.published import against_published, published_curves, published_figure
from tdmpc_ray.studies.results.study_runs import StudyRuns


def made_up(task: str, metric: str, seeds: int = 2, steps: int = 50_000) -> StudyRuns:
    """Seeds that end at 50,000 agent steps, 100,000 frames, with 0.5 and 0.7."""
    who = {"task": task, "model_size": "1", "setting": ""}
    trials = [
        {**who, "run_id": str(s), "status": "FINISHED", "stopped_early": "", "final": 0.5 + 0.2 * s}
        for s in range(seeds)
    ]
    curves = [
        {
            **who,
            "run_id": trial["run_id"],
            "env_steps": step,
            "env_frames": 2 * step,
            "value": trial["final"] * step / steps,
        }
        for trial in trials
        for step in (0, 2 * steps // 5, steps)
    ]
    trials = [{**trial, "params": 1e6} for trial in trials]
    return StudyRuns("lab", "made up", ("id",), pd.DataFrame(trials), pd.DataFrame(curves), {}, metric)


def test_published_values_are_those_of_the_repository() -> None:
    walker = published_curves("tdmpc2", "walker-walk")
    assert walker["env_frames"].max() == 4_000_000
    first = walker[(walker["seed"] == 1) & (walker["env_frames"] <= 200_000)]
    assert first["value"].tolist() == pytest.approx([27.9, 966.7, 970.5])
    assert published_curves("tdmpc2", "walker-walk", "eval/success").empty
    assert published_curves("tdmpc2", "mw-reach", "eval/success")["value"].between(0, 1).all()
    with pytest.raises(UserError, match="unknown published algorithm 'tdmcp2': did you mean 'tdmpc2'"):
        published_curves("tdmcp2", "walker-walk")


def test_last_evaluations_stand_beside_the_published_ones_at_the_same_frames() -> None:
    walker = published_curves("tdmpc2", "walker-walk")
    (row,) = against_published(made_up("walker-walk", "eval/return"), ["tdmpc2"]).to_dict("records")
    assert (row["env_frames"], row["seeds"], row["value"]) == (100_000, 2, 0.6)
    assert row["published"] == pytest.approx(walker[walker["env_frames"] == 100_000]["value"].mean())
    both = against_published(made_up("mw-reach", "eval/success"), ["sac", "tdmpc2"])
    assert both["algorithm"].tolist() == ["sac", "tdmpc2"]
    with pytest.raises(UserError, match="tdmpc2-pixels: nothing was published for mw-reach"):
        against_published(made_up("mw-reach", "eval/success"), ["tdmpc2-pixels"])


def test_nothing_is_compared_where_nothing_was_published() -> None:
    """Between two published points the curve is not known; a straight line there would flatter every run."""
    (row,) = against_published(made_up("walker-walk", "eval/return", steps=20_000), ["tdmpc2"]).to_dict(
        "records"
    )
    assert (row["env_frames"], row["value"], row["published_from"]) == (40_000, 0.6, 100_000)
    assert math.isnan(row["published"])
    (row,) = against_published(made_up("walker-walk", "eval/return", steps=75_000), ["tdmpc2"]).to_dict(
        "records"
    )
    assert row["env_frames"] == 100_000
    assert row["value"] == pytest.approx(0.6 * 100 / 150)
    figure = published_figure(made_up("walker-walk", "eval/return", steps=20_000), ["tdmpc2"])
    (axes,) = figure.get_axes()
    published = axes.get_lines()[-1]
    assert (list(published.get_xdata()), published.get_linestyle()) == ([0, 100_000], "--")
    assert axes.get_xlim()[1] > 100_000


def test_the_figure_is_over_frames_with_seeds_as_bands() -> None:
    figure = published_figure(made_up("mw-reach", "eval/success"), ["tdmpc2", "sac"])
    (axes,) = figure.get_axes()
    lines = {str(line.get_label()).split("\n")[0]: line for line in axes.get_lines()}
    assert set(lines) == {"size 1", "tdmpc2", "sac"}
    assert list(lines["size 1"].get_xdata()) == [0, 40_000, 100_000]
    assert list(lines["size 1"].get_ydata()) == pytest.approx([0, 0.24, 0.6])
    bands = [band.get_paths()[0].get_extents() for band in axes.collections]
    assert len(bands) == 3
    assert (bands[0].ymin, bands[0].ymax) == pytest.approx((0.0, 0.7))
    assert axes.get_xlim()[1] == pytest.approx(103_000)
    assert axes.get_ylabel() == "success rate in evaluation"


def test_compare_judges_tasks_by_their_own_metric(
    monkeypatch: pytest.MonkeyPatch, drive: Any, store: str, tmp_path: Path
) -> None:
    from tdmpc_ray.studies.tracking.callback import MLflowTracker

    tracker = MLflowTracker(uri=store, experiment="arms", study="reach", spool_dir=tmp_path / "spool")
    tracker.setup()
    calls = drive(tracker)
    trial = drive.trial("reach-1", model_size="1", seed=0, task="mw-reach")
    calls.start(trial)
    for step, success in ((10_000, 0.2), (50_000, 0.8)):
        calls.result(
            trial, step, time__env_steps=step, time__env_frames=2 * step, time__wall_s=step / 10,
            summary__params_total=1e6, eval__return=100.0, eval__success=success,
        )  # fmt: skip
    calls.complete(trial)
    assert tracker.close("FINISHED") is None
    console = Console(file=io.StringIO(), width=160)
    path = compare("arms", store, out=tmp_path, over=["tdmpc2"], console=console)
    assert path == tmp_path / "reach_published.png"
    assert matplotlib.image.imread(path).shape[1] > 900
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "mw-reach at 100,000 frames: size 1 (1 seed) 0.8, tdmpc2 as published" in text
    assert "final evaluation's success" in text
