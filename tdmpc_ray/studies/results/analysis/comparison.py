"""Which size or setting is better, with the uncertainty of few runs: after Agarwal et al. (2021)."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from scipy import stats

from tdmpc_ray.studies.results.analysis.section import Evidence, Picture, Section, listed, panel
from tdmpc_ray.studies.results.random_policy import RANDOM, RUN_IDS, with_random
from tdmpc_ray.studies.results.scaling import MIN_TRIMMED, bootstrap_interval, iqm
from tdmpc_ray.studies.results.statistics import performance_profile, probability_of_improvement
from tdmpc_ray.studies.results.study_runs import Group

_MAX_ALL_PAIRS = 4  # groups; more are compared with their neighbours alone
_LEVELS = 101


def aggregates(evidence: Evidence) -> Section:
    """IQM and mean of the scores of each group, with stratified bootstrap intervals."""
    key, title = "iqm", "Interquartile mean"
    reason = _too_few(evidence, 1)
    if reason:
        return Section(key, title, absent=reason)
    rows = []
    for group in evidence.complete:
        strata = evidence.strata(group)
        pooled = np.concatenate(strata)
        iqm_low, iqm_high = bootstrap_interval(strata, iqm)
        low, high = bootstrap_interval(strata, np.mean)
        rows.append(
            {
                "model_size": group[0],
                "setting": group[1],
                "tasks": len(strata),
                "runs": len(pooled),
                "iqm": iqm(pooled),
                "iqm_low": iqm_low,
                "iqm_high": iqm_high,
                "mean": evidence.mean_scores[group],
                "mean_low": low,
                "mean_high": high,
                "conclusion": "; ".join(evidence.cautions(group)),
                RUN_IDS: evidence.run_ids(group),
            }
        )
    tasks = {"tasks": len(evidence.scales)}
    table = with_random(pd.DataFrame(rows), [row | tasks for row in evidence.random_rows("mean")])
    shown = [evidence.complete.index(group) for group in evidence.shown]
    with panel(height=1.5 + 0.36 * len(shown)) as (figure, axes):
        for place, (index, group) in enumerate(zip(shown, evidence.shown, strict=True)):
            row, colour = table.iloc[index], evidence.colours[group]
            if np.isfinite(row["iqm_low"]):
                axes.plot(
                    [row["iqm_low"], row["iqm_high"]], [place] * 2, color=colour, linewidth=7, alpha=0.4
                )
            axes.scatter([row["iqm"]], [place], s=60, color=[colour], edgecolor="white", zorder=3)
        axes.set_yticks(range(len(shown)), [evidence.runs.label(group) for group in evidence.shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        is_mean = (table["runs"] < MIN_TRIMMED).all()
        axes.set_xlabel("mean of scores (of fewer than 4 runs)" if is_mean else "IQM of scores")
        axes.set_title("Mean, 95% interval" if is_mean else "IQM, 95% interval")
        axes.grid(axis="y", visible=False)
    return Section(
        key,
        title,
        (
            "The mean of the middle half of all runs' final scores: less moved by outliers than the mean, "
            "less wasteful than the median. " + evidence.scale_words(),
            "Intervals: percentile bootstrap, runs resampled within each task. With fewer than ten runs per "
            "task they are too narrow: with three, a 95% interval of a mean covers it about 73% of the time.",
            *_iqm_notes(evidence),
            *evidence.left_out(),
        ),
        (Picture("iqm", "Interquartile mean of each size and setting with its interval", figure),),
        table,
    )


def _iqm_notes(evidence: Evidence) -> list[str]:
    """Where the numbers are not what their name says."""
    counts = {group: [len(stratum) for stratum in evidence.strata(group)] for group in evidence.complete}
    few = [evidence.runs.label(group) for group, runs in counts.items() if sum(runs) < MIN_TRIMMED]
    notes = []
    if few:
        notes.append(
            f"Of fewer than 4 runs nothing is cut off: what stands as IQM is the mean ({listed(few)})."
        )
    uneven = [evidence.runs.label(group) for group, runs in counts.items() if len(set(runs)) > 1]
    if uneven:
        notes.append(
            "Tasks weigh alike in means. In the IQM runs do, so that a task with more of them weighs more "
            f"({listed(uneven)})."
        )
    return notes


def profiles(evidence: Evidence) -> Section:
    """Share of runs above each score."""
    key, title = "profiles", "Performance profiles"
    reason = _too_few(evidence, 1)
    if reason:
        return Section(key, title, absent=reason)
    groups = [group for group in evidence.shown if _has_seeds(evidence, group)]
    scores = np.concatenate([np.concatenate(evidence.strata(group)) for group in groups])
    levels = np.linspace(min(0.0, scores.min()), max(1.0, scores.max()), _LEVELS)
    rows = []
    with panel() as (figure, axes):
        for group in groups:
            shares, low, high = performance_profile(evidence.strata(group), levels)
            colour = evidence.colours[group]
            axes.plot(levels, shares, color=colour, linewidth=2, label=evidence.runs.label(group))
            axes.fill_between(levels, low, high, color=colour, alpha=0.15, linewidth=0)
            rows += [
                {
                    "model_size": group[0],
                    "setting": group[1],
                    "score_above": level,
                    "share_of_runs": share,
                    "low": below,
                    "high": above,
                    RUN_IDS: evidence.run_ids(group),
                }
                for level, share, below, above in list(zip(levels, shares, low, high, strict=True))[::10]
            ]
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("score τ")
        axes.set_ylabel("share of runs with score > τ")
        axes.set_title("Performance profiles, 95% bands")
        axes.legend(frameon=False, fontsize=8, loc="upper right")
    random = [
        {"score_above": level, "share_of_runs": np.mean(np.array(evidence.random_scores) > level)}
        for level in levels[::10]
        if evidence.random_scores
    ]
    return Section(
        key,
        title,
        (
            "For each score τ the share of runs that end above it, tasks weighted alike; a line above "
            "another everywhere is better at every level. The area under a line is its mean score, if "
            "scores are between 0 and 1. Bands: pointwise bootstrap within tasks. " + evidence.scale_words(),
            *evidence.left_out(),
        ),
        (Picture("profiles", "Share of runs above each score, a line per size and setting", figure),),
        with_random(pd.DataFrame(rows), random),
    )


def improvement(evidence: Evidence) -> Section:
    """Probability that a run of one group beats a run of another."""
    key, title = "improvement", "Probability of improvement"
    reason = _too_few(evidence, 2)
    if reason:
        return Section(key, title, absent=reason)
    groups = [group for group in evidence.shown if _has_seeds(evidence, group)]
    is_small = len(groups) <= _MAX_ALL_PAIRS
    sides = [(evidence.runs.label(own), evidence.strata(own), evidence.run_ids(own)) for own in groups]
    # The later one, which is the larger model, against the earlier.
    pairs = [(x, y) for y, x in (combinations(sides, 2) if is_small else pairwise(sides))]
    if evidence.random_scores:
        random = (RANDOM, [np.array([score]) for score in evidence.random_scores], ())
        pairs += [(side, random) for side in sides]
    rows = []
    for (x, of_x, x_ids), (y, of_y, y_ids) in pairs:
        strata = list(zip(of_x, of_y, strict=True))
        value, (low, high) = probability_of_improvement(strata)
        found = {"p_x_beats_y": value, "low": low, "high": high, "mann_whitney_p": _p_value(strata)}
        rows.append({"x": x, "y": y, **found, RUN_IDS: x_ids + y_ids})
    table = pd.DataFrame(rows)
    with panel(height=1.5 + 0.36 * len(table)) as (figure, axes):
        axes.axvline(0.5, color="#888888", linewidth=1.2, linestyle=(0, (4, 3)))
        places = range(len(table))
        axes.hlines(places, table["low"], table["high"], color="#31688e", linewidth=7, alpha=0.4)
        axes.scatter(table["p_x_beats_y"], places, s=60, color="#31688e", edgecolor="white", zorder=3)
        axes.set_yticks(places, [f"{row['x']} > {row['y']}" for row in rows], fontsize=8.5)
        axes.set_ylim(len(table) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("probability")
        axes.grid(axis="y", visible=False)
        axes.set_title("P(X > Y), 95% interval")
    which = "All pairs are compared." if is_small else "Neighbours in order are compared."
    return Section(
        key,
        title,
        (
            "How probable it is that a random run of X ends above a random run of Y on the same task, ties "
            "as one half, averaged over tasks: 0.5 says that nothing is known to be better, and so does an "
            f"interval that holds 0.5. {which} Intervals by bootstrap of the runs of both within each task; "
            "with two to five seeds they are too narrow (they shrink to a point where all runs of X beat all "
            "of Y), so the table has the two-sided p value of the Mann-Whitney test beside them, where "
            "there is one task. The random policy is a Y whose only run is its mean return.",
        ),
        (Picture("improvement", "Probability that one size or setting beats another", figure),),
        table.dropna(axis="columns", how="all"),
    )


def _p_value(strata: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Of one task; NaN for several, and against the random policy's mean."""
    if len(strata) > 1 or strata[0][1].size == 1:
        return float("nan")
    return float(stats.mannwhitneyu(*strata[0]).pvalue)


def _has_seeds(evidence: Evidence, group: Group) -> bool:
    return max(len(stratum) for stratum in evidence.strata(group)) > 1


def _too_few(evidence: Evidence, groups: int) -> str:
    """Why runs cannot tell `groups` groups apart; empty where they can."""
    enough = [group for group in evidence.shown if _has_seeds(evidence, group)]
    if not enough:
        return "every size and setting has one seed, which says nothing about its spread: no interval."
    if len(enough) < groups:
        return "one size or setting has several seeds: there is nothing to compare it with."
    return ""
