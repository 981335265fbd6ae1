"""The table and the figures of `tdmpc-ray compare`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console
from written_study import run_study

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.results.analysis.search import importance_section, parallel_coordinates
from tdmpc_ray.studies.results.analysis.section import Evidence
from tdmpc_ray.studies.results.compare import compare
from tdmpc_ray.studies.results.costs import with_costs
from tdmpc_ray.studies.results.drawing import mean_curve, spread
from tdmpc_ray.studies.results.figures import scaling_figure
from tdmpc_ray.studies.results.study_runs import load_study_runs
from tdmpc_ray.studies.tracking.callback import MLflowTracker


def test_compare_prints_and_draws(drive: Any, store: str, tmp_path: Path) -> None:
    run_study(drive, store, tmp_path, "big one", tasks=("walker-walk", "cup-catch"), seeds=2)
    console = Console(file=io.StringIO(), width=160)
    path = compare("walkers", store, out=tmp_path / "figures" / "new", console=console)
    assert path == tmp_path / "figures" / "new" / "big_one_scaling.png"
    height, width, _ = matplotlib.image.imread(path).shape
    assert width >= 1600
    assert height >= 1300  # two tasks, two rows
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("cup-catch") >= 4
    assert "905.0" in text
    assert "19.30 M" in text
    assert compare("walkers", store, out=tmp_path / "a.png", console=console) == tmp_path / "a.png"


def test_the_figure_shows_the_study(drive: Any, store: str, tmp_path: Path) -> None:
    run_study(drive, store, tmp_path, "figure")
    figure = scaling_figure(load_study_runs("walkers", store))
    curves, sizes = figure.get_axes()
    assert curves.get_xlabel() == "agent steps (1 agent step = 2 frames)"
    assert sizes.get_xscale() == "log"
    assert [label.get_text() for label in sizes.get_xticklabels()] == [
        "80k\n(tiny)",
        "960k\n(1)",
        "19.3M\n(19)",
    ]
    named = {str(line.get_label()): line for line in curves.get_lines()}
    assert np.asarray(named["size 19"].get_ydata()).tolist() == [710.0, 915.0, 910.0]
    assert set(np.asarray(named["random policy"].get_ydata()).tolist()) == {39.0}
    assert {"size tiny", "size 1", "size 19", "random policy"} <= {text.get_text() for text in curves.texts}
    # No text of a panel may leave the page or lie on another.
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    boxes = [text.get_window_extent(renderer) for text in [*curves.texts, *sizes.get_xticklabels()]]
    for index, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])


def test_curves_are_averaged_where_all_seeds_have_data(drive: Any, store: str, tmp_path: Path) -> None:
    run_study(drive, store, tmp_path, "uneven", sizes=("1",), seeds=2)
    curves = load_study_runs("walkers", store).curves
    shorter = curves[~((curves["seed"] == "1") & (curves["env_steps"] == 3000))].copy()
    shorter.loc[(shorter["seed"] == "1") & (shorter["env_steps"] == 2000), "env_steps"] = 2500
    steps, mean, low, high = mean_curve(shorter)
    assert steps.tolist() == [1000, 2000, 2500]
    # Seed 0: 400, 605, 602.5 (between 605 and 600); seed 1: 410, 410 + 2/3 of 205, 615.
    assert mean == pytest.approx([405.0, (605 + 410 + 205 * 2 / 3) / 2, (602.5 + 615) / 2])
    assert (low <= mean).all()
    assert (mean <= high).all()


def test_labels_are_spread_as_little_as_needed() -> None:
    assert spread([1.0, 5.0], 1.0, 0.0, 10.0) == [1.0, 5.0]
    assert spread([5.0, 5.0, 5.0], 1.0, 0.0, 10.0) == pytest.approx([4.0, 5.0, 6.0])
    assert spread([9.9, 10.0], 1.0, 0.0, 10.0) == pytest.approx([9.0, 10.0])
    assert spread([], 1.0, 0.0, 10.0) == []


def test_a_search_of_which_one_setting_is_left(drive: Any, store: str, tmp_path: Path) -> None:
    tracker = MLflowTracker(uri=store, experiment="walkers", study="h", spool_dir=tmp_path / "h")
    tracker.setup()
    calls = drive(tracker)
    for horizon in (3, 5):
        trial = drive.trial(f"h{horizon}", model_size="1", seed=0, task="t", **{"planner.horizon": horizon})
        calls.start(trial)
        if horizon == 5:  # before its first evaluation
            calls.error(trial)
        else:
            calls.result(trial, 1000, eval__return=100.0, summary__params_total=1e6)
            calls.complete(trial)
    assert tracker.close("FINISHED") is None
    evidence = Evidence(with_costs(load_study_runs("walkers", store), store))
    for section in (parallel_coordinates(evidence), importance_section(evidence)):
        assert "only one setting has results" in section.absent


def test_a_figure_goes_where_it_can(drive: Any, store: str, tmp_path: Path) -> None:
    run_study(drive, store, tmp_path, "one", sizes=("1",), seeds=1)
    quiet = Console(file=io.StringIO())
    assert compare("walkers", store, out=tmp_path / "figs.v2", console=quiet).parent == tmp_path / "figs.v2"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*/file/x.png: .*; choose another --out"):
        compare("walkers", store, out=tmp_path / "file" / "x.png", console=quiet)
