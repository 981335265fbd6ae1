"""Losses on episodes that were kept from training, beside those on what was learned from."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tdmpc_ray.studies.results.analysis.section import Evidence, Picture, Section, panel
from tdmpc_ray.studies.results.drawing import log_axis, mean_curve, name_lines
from tdmpc_ray.studies.results.random_policy import RUN_IDS
from tdmpc_ray.studies.tracking.kind import StudyKind

KEY, TITLE = "validation", "What was learned by heart"
_LOSSES = {"td_error": "TD error", "consistency": "consistency loss", "reward": "reward loss"}
_BEGINNING = 0.1  # of a run, in which a loss falls so far that nothing else could be seen


def validation(evidence: Evidence) -> Section:
    """A picture for each loss, a line for each group."""
    points = evidence.runs.validation
    if points.empty:
        absent = "no run kept episodes from training (data.validation_share)."
        return Section(KEY, TITLE, absent=absent)
    points = points[points["step"] >= _BEGINNING * points["step"].max()]
    rows = [row for group in evidence.runs.groups for row in _rows(evidence, points, group)]
    return Section(
        KEY,
        TITLE,
        (
            "Losses of the model on episodes that no update has seen (solid), and on as many that updates "
            "were taken on (dashed, thin): means over seeds. Where the solid line stays up or rises while "
            "the dashed one falls, the model learns its data by heart: too many updates per step, or too "
            "large a model for so little data. A better policy has larger values, and larger errors of them.",
        ),
        tuple(_picture(evidence, points, loss, name) for loss, name in _LOSSES.items()),
        pd.DataFrame(rows) if rows else None,
    )


def _of(evidence: Evidence, points: pd.DataFrame, group: tuple[str, str], metric: str) -> pd.DataFrame:
    trials = evidence.runs.trials
    own = trials[(trials["model_size"] == group[0]) & (trials["setting"] == group[1])]["run_id"].unique()
    found = points[points["run_id"].isin(own) & (points["metric"] == metric)]
    return found.rename(columns={"step": "env_steps"})


def _picture(evidence: Evidence, points: pd.DataFrame, loss: str, name: str) -> Picture:
    with panel() as (figure, axes):
        for group in evidence.shown or evidence.runs.groups:
            colour: Any = evidence.colours.get(group, "#31688e")
            for prefix, style in (("", {"linewidth": 2.0}), ("seen_", {"linewidth": 0.9, "linestyle": "--"})):
                curves = _of(evidence, points, group, f"{prefix}{loss}")
                if len(curves):
                    places, mean, _, _ = mean_curve(curves)
                    label = evidence.runs.label(group) if not prefix else "_seen"
                    axes.plot(places, mean, color=colour, label=label, **style)
        axes.set_yscale("log")
        log_axis(axes.yaxis, *axes.get_ylim())
        axes.set_xlabel("updates" if StudyKind.OFFLINE in evidence.runs.kind else "agent steps")
        axes.set_ylabel(f"{name} (log)")
        axes.set_title(name)
        name_lines([axes])
    return Picture(loss, f"{name} on episodes kept from training and on others, over agent steps", figure)


def _rows(evidence: Evidence, points: pd.DataFrame, group: tuple[str, str]) -> list[dict[str, Any]]:
    """Of a group's last reports, a row; none where it has none."""
    row: dict[str, Any] = {"model_size": group[0], "setting": group[1]}
    run_ids: set[str] = set()
    for loss in _LOSSES:
        for prefix in ("", "seen_"):
            own = _of(evidence, points, group, f"{prefix}{loss}")
            if own.empty:
                return []
            run_ids |= set(own["run_id"])
            row[f"{prefix}{loss}"] = own.sort_values("env_steps").groupby("run_id")["value"].last().mean()
        row[f"{loss}_ratio"] = row[loss] / row[f"seen_{loss}"]
    return [{**row, RUN_IDS: tuple(sorted(run_ids))}]
