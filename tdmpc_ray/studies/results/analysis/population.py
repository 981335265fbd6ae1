"""How a population's settings moved while it trained."""

from __future__ import annotations

import pandas as pd
from matplotlib.ticker import FuncFormatter

from tdmpc_ray.studies.results.analysis.section import Evidence, Picture, Section, panel
from tdmpc_ray.studies.results.drawing import rank_colours, short
from tdmpc_ray.studies.results.random_policy import RUN_IDS

NO_SEARCH = (
    "a population changes its settings while it trains, so that those that a member began with say nothing: "
    "see how they moved."
)
_LOG_RATIO = 10.0


def movement(evidence: Evidence) -> Section:
    """Of a population: a panel per setting that it has changed, a line per member."""
    key, title = "population", "How settings moved"
    runs = evidence.runs
    if runs.changes.empty:
        return Section(key, title, absent="no member has gone on from another one yet.")
    finals = runs.trials.groupby("run_id")["final"].mean()
    ranked = list(finals.sort_values(na_position="first").index)
    colours = rank_colours(ranked)
    pictures = []
    for setting, changes in runs.changes.groupby("setting"):
        with panel() as (figure, axes):
            for run_id, line in changes.groupby("run_id"):
                axes.step(line["step"], line["value"], where="post", color=colours[run_id], linewidth=1.4)
            values = changes["value"]
            if values.min() > 0 and values.max() > _LOG_RATIO * values.min():
                axes.set_yscale("log")
            axes.set_xlabel("agent steps")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
            axes.set_ylabel(str(setting))
            axes.set_title(str(setting))
        alt = f"{setting} over agent steps, a line per member of the population"
        pictures.append(Picture(str(setting).replace(".", "-"), alt, figure))
    last = runs.changes.sort_values("step").groupby(["setting", "run_id"], as_index=False).last()
    rows = [
        {
            "setting": setting,
            "members": len(own),
            "lowest_at_end": own["value"].min(),
            "median_at_end": own["value"].median(),
            "highest_at_end": own["value"].max(),
            RUN_IDS: tuple(own["run_id"]),
        }
        for setting, own in last.groupby("setting")
    ]
    return Section(
        key,
        title,
        (
            "The worst members of a population go on from the networks of the best, with their settings "
            "changed a little. A line is a member that has changed; the darker, the better it ended. What "
            "all of them turn to is what the scheduler found, for this stage of the training.",
        ),
        tuple(pictures),
        pd.DataFrame(rows),
    )
