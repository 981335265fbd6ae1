"""How the result grows with parameters and with FLOPs, and the power law if there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tdmpc_ray.studies.results.analysis.section import Evidence, Picture, Section, panel
from tdmpc_ray.studies.results.drawing import draw_mean, log_axis
from tdmpc_ray.studies.results.random_policy import RUN_IDS, with_random
from tdmpc_ray.studies.results.scaling import (
    ANY,
    MIN_SIZES,
    Floats,
    Interval,
    PowerLaw,
    fit_power_law,
    mean_interval,
)
from tdmpc_ray.studies.results.study_runs import Group

_RESAMPLES = 100
_COLOUR = "#31688e"
_LAW_COLOUR = "#b5367a"
_AXES = {"params": "parameters", "flops": "FLOPs per run, planning included"}


@dataclass(frozen=True)
class SizeResult:
    """One model size, with its best setting.

    Attributes:
        values: a score per seed, averaged over tasks; where tasks share no seed, per run.
        is_pooled: they are per run, of several tasks.
    """

    group: Group
    params: float
    flops: float
    values: Floats
    run_ids: tuple[str, ...]
    is_pooled: bool = False


def size_results(evidence: Evidence) -> list[SizeResult]:
    """Every size with its best setting, small to large."""
    found = []
    for size in evidence.runs.sizes:
        groups = [group for group in evidence.complete if group[0] == size]
        if groups:
            group = max(groups, key=lambda g: evidence.mean_scores[g])
            own = evidence.of(group)
            by_seed = own.pivot_table(index="seed", columns="task", values="score")
            values = by_seed.dropna().mean(axis=1).to_numpy(dtype=float)
            found.append(
                SizeResult(
                    group,
                    float(own["params"].max()),
                    float(own["flops"].mean()),
                    values if len(values) else own["score"].to_numpy(dtype=float),
                    evidence.run_ids(group),
                    is_pooled=not len(values),
                )
            )
    return found


def why_no_law(evidence: Evidence, results: list[SizeResult]) -> str:
    """What keeps a power law from being fitted; empty where nothing does."""
    if len(results) < MIN_SIZES:
        sizes = f"{len(results)} model size{'s' * (len(results) != 1)}"
        return f"{sizes} cannot identify its three parameters, at least {MIN_SIZES} are needed"
    if not all(scale.has_ceiling for scale in evidence.scales.values()):
        return "the best possible result is not known on every task, so neither is the gap to it"
    if not all(result.params > 0 for result in results):
        return "parameters were not logged for every size"
    if any((result.values >= 1).any() for result in results):
        return "some runs reach the best possible score, and a gap of 0 has no logarithm"
    return ""


def scaling_law(evidence: Evidence, results: list[SizeResult]) -> PowerLaw | str:
    """The law of the gap to the best possible score over parameters, or why there is none."""
    reason = why_no_law(evidence, results)
    if reason:
        return reason
    return fit_power_law(
        [result.params for result in results],
        [1 - result.values for result in results],
        resamples=_RESAMPLES,
    )


def law_sentence(law: PowerLaw | str) -> str:
    """What the data say about the law, for a reader."""
    if isinstance(law, str):
        return f"No power law: {law}."
    if not law.identifiable:
        return f"The data do not identify a power law: {law.reason}."
    (b_low, b_high), (c_low, c_high) = law.intervals["b"], law.intervals["c"]
    return (
        f"1 - score = {law.a:.3g} x^-{law.b:.2f} + {law.c:.3f}: exponent {law.b:.2f} "
        f"(95% interval {b_low:.2f} to {b_high:.2f}), floor {law.c:.3f} ({c_low:.3f} to {c_high:.3f})."
    )


def sizes_section(evidence: Evidence, laws: dict[str, PowerLaw | str]) -> Section:
    """Score, or the gap to the best possible one, over parameters and FLOPs.

    Args:
        evidence: the study.
        laws: `params` to what `scaling_law` found, `flops` to what `frontier_law` did.
    """
    key, title = "scaling", "Scaling with model size"
    results = size_results(evidence)
    known = [axis for axis in _AXES if sum(getattr(result, axis) > 0 for result in results) >= 2]
    if len(results) < 2:
        return Section(key, title, absent="the study has one model size with results on every task.")
    if not known:
        return Section(key, title, absent="the trials have logged neither parameters nor FLOPs.")
    has_ceilings = all(scale.has_ceiling for scale in evidence.scales.values())
    has_gap = has_ceilings and all((result.values < 1).all() for result in results)
    bounds = Interval(0.0, 1.0) if has_ceilings else ANY
    pictures = [_picture(results, axis, laws[axis], has_gap, bounds) for axis in known]
    what = "1 - score, the gap to the best possible score," if has_gap else "The mean score"
    several = len(evidence.runs.settings) > 1
    return Section(
        key,
        title,
        (
            f"{what} after training, over parameters and over FLOPs: means over seeds with the 95% "
            f"interval of the mean, seeds as small dots. {evidence.scale_words()} {evidence.flops_words()}",
            *(["Each size stands with its best setting, which flatters it a little."] if several else []),
            *evidence.basis(),
            *_pooled_sentence(results),
            *_law_sentences({axis: laws[axis] for axis in known}),
        ),
        tuple(pictures),
        with_random(
            pd.DataFrame([_row(result, bounds) for result in results]), evidence.random_rows("mean_score")
        ),
    )


def _pooled_sentence(results: list[SizeResult]) -> list[str]:
    pooled = [f"size {result.group[0]}" for result in results if result.is_pooled]
    if not pooled:
        return []
    return [f"Where tasks share no seed ({', '.join(pooled)}), a task with more runs weighs more."]


def _law_sentences(laws: dict[str, PowerLaw | str]) -> list[str]:
    reasons = {law for law in laws.values() if isinstance(law, str)}
    if len(reasons) == 1 and all(isinstance(law, str) for law in laws.values()):
        return [law_sentence(reasons.pop())]
    fit = (
        "Laws are fitted to the seeds' gaps in log space with a robust loss; intervals and band by bootstrap "
        "of the residuals. The law over FLOPs is that of the frontier (see there), of the points where each "
        "of its stretches ends: a size that ends below another one that took as much does not count."
    )
    return [*(f"Over {_AXES[axis]}: {law_sentence(law)}" for axis, law in laws.items()), fit]


def _row(result: SizeResult, bounds: Interval) -> dict[str, Any]:
    low, high = mean_interval(result.values, bounds)
    return {
        "model_size": result.group[0],
        "setting": result.group[1],
        "params": result.params,
        "flops_per_run": result.flops,
        "seeds": len(result.values),
        "mean_score": result.values.mean(),
        "low": low,
        "high": high,
        RUN_IDS: result.run_ids,
    }


def _picture(
    results: list[SizeResult], axis: str, law: PowerLaw | str, has_gap: bool, bounds: Interval
) -> Picture:
    here = [result for result in results if getattr(result, axis) > 0]
    places = np.array([getattr(result, axis) for result in here])
    with panel() as (figure, axes):
        values = [1 - result.values if has_gap else result.values for result in here]
        means = [value.mean() for value in values]
        if isinstance(law, PowerLaw) and law.identifiable:
            line = np.geomspace(places.min() / 1.5, places.max() * 1.5, 100)
            band = np.minimum(law.band(line), 1.0)  # no gap is larger
            axes.fill_between(line, *band, color=_LAW_COLOUR, alpha=0.15, linewidth=0)
            axes.plot(
                line,
                law(line),
                color=_LAW_COLOUR,
                linewidth=1.6,
                label=f"fitted {'frontier' if axis == 'flops' else 'law'}, 95% band",
            )
            axes.legend(frameon=False, fontsize=8.5, loc="best")
        else:
            axes.plot(places, means, color="#bbbbbb", linewidth=1.2, zorder=1)
        for place, value, mean, result in zip(places, values, means, here, strict=True):
            draw_mean(axes, place, value, _COLOUR, bounds, least=0.3 if has_gap else 0.0)
            axes.annotate(result.group[0], (place, mean), (7, 6), textcoords="offset points", fontsize=8.5)
        axes.set_xscale("log")
        axes.set_xlim(places.min() / 2, places.max() * 2.5)
        log_axis(axes.xaxis, *axes.get_xlim())
        if has_gap:
            axes.set_yscale("log")
            log_axis(axes.yaxis, *axes.get_ylim())
        axes.set_xlabel(f"{_AXES[axis]} (log)")
        axes.set_ylabel("1 - score (log)" if has_gap else "score")
        axes.set_title("Gap to the best possible score" if has_gap else "Score by model size")
    what = "1 - score" if has_gap else "Score"
    alt = f"{what} over {_AXES[axis]}, logarithmic, a point per model size"
    return Picture(axis.replace("_", "-"), alt, figure)
