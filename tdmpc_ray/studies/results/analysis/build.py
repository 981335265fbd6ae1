"""All sections of a report, and what its summary says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tdmpc_ray.studies.results.analysis.budget import budget
from tdmpc_ray.studies.results.analysis.comparison import aggregates, improvement, profiles
from tdmpc_ray.studies.results.analysis.cost import costs, throughput
from tdmpc_ray.studies.results.analysis.data_needed import data_needed, laws_section
from tdmpc_ray.studies.results.analysis.embedding import embeddings
from tdmpc_ray.studies.results.analysis.frontier import frontier, frontier_law
from tdmpc_ray.studies.results.analysis.law_runs import law_runs
from tdmpc_ray.studies.results.analysis.law_words import fit_study, law_metrics
from tdmpc_ray.studies.results.analysis.population import movement
from tdmpc_ray.studies.results.analysis.results import results
from tdmpc_ray.studies.results.analysis.search import importance_section, parallel_coordinates
from tdmpc_ray.studies.results.analysis.section import MIN_SEEDS, Evidence, Section
from tdmpc_ray.studies.results.analysis.sizes import law_sentence, scaling_law, size_results, sizes_section
from tdmpc_ray.studies.results.analysis.validation import validation
from tdmpc_ray.studies.results.random_policy import RUN_IDS, with_random
from tdmpc_ray.studies.results.scaling import MIN_TRIMMED, PowerLaw, bootstrap_interval, iqm
from tdmpc_ray.studies.results.study_runs import StudyRuns


@dataclass(frozen=True)
class Report:
    """A study's report.

    Attributes:
        runs: what it is about.
        facts: pairs of a word and what the summary says about it.
        sections: its parts, also those that the data cannot support.
        metrics: of the study as a whole, as MLflow is to have them.
    """

    runs: StudyRuns
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    metrics: dict[str, float]


def build_report(runs: StudyRuns, thresholds: Sequence[float] = ()) -> Report:
    """All sections and the summary.

    Args:
        runs: with costs, see `with_costs`.
        thresholds: results that data is counted to; none: some that the curves suggest.

    Raises:
        UserError: as `fit_study`.
    """
    evidence = Evidence(runs)
    of_laws = law_runs(evidence)
    data_laws = [] if isinstance(of_laws, str) else fit_study(evidence, of_laws, thresholds)
    laws = {"params": scaling_law(evidence, size_results(evidence)), "flops": frontier_law(evidence)}
    sections = (
        results(evidence),
        sizes_section(evidence, laws),
        data_needed(evidence, of_laws, data_laws),
        laws_section(evidence, data_laws),
        budget(evidence, of_laws, data_laws),
        validation(evidence),
        aggregates(evidence),
        profiles(evidence),
        improvement(evidence),
        parallel_coordinates(evidence),
        importance_section(evidence),
        *([movement(evidence)] if runs.is_population else []),
        *([embeddings(evidence)] if len(runs.embeddings) else []),
        frontier(evidence),
        throughput(evidence),
        costs(evidence),
        _runs_section(runs),
    )
    metrics = {name: x for fitted in data_laws for name, x in law_metrics(fitted, evidence).items()}
    return Report(runs, _facts(evidence, laws["params"]), sections, metrics)


def _facts(evidence: Evidence, law: PowerLaw | str) -> tuple[tuple[str, str], ...]:
    runs = evidence.runs
    seeds = sorted(set(runs.trials.groupby(["task", "model_size", "setting"]).size()))
    unfinished = int((runs.trials["status"] != "FINISHED").sum())
    stopped = int((runs.trials["stopped_early"] != "").sum())
    notes = [f"{unfinished} not finished"] * bool(unfinished) + [f"{stopped} stopped early"] * bool(stopped)
    trials = f"{len(runs.trials)}" + (f" ({', '.join(notes)})" if notes else "")
    facts = [
        ("study", runs.study),
        ("kind", str(runs.kind)),
        ("task" if len(runs.tasks) == 1 else "tasks", ", ".join(runs.tasks)),
        ("model sizes", ", ".join(runs.sizes)),
        ("trials", trials),
        ("seeds per line", f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"),
        ("metric", runs.metric),
    ]
    facts += [("compared", sentence) for sentence in evidence.basis()]
    if evidence.complete:
        facts.append(("best" if len(evidence.complete) > 1 else "result", _best(evidence)))
    facts.append(("power law", law_sentence(law)))
    return tuple(facts)


def _best(evidence: Evidence) -> str:
    best = max(evidence.complete, key=lambda group: evidence.mean_scores[group])
    strata = evidence.strata(best)
    scores = [score for stratum in strata for score in stratum]
    what, seeds = "IQM" if len(scores) >= MIN_TRIMMED else "mean", max(map(len, strata))
    said = f"{evidence.runs.label(best)}: {what} of scores {iqm(scores):.3g}"
    if seeds == 1:
        said = f"{evidence.runs.label(best)}: mean score {evidence.mean_scores[best]:.3g}"
    if seeds >= MIN_SEEDS:
        low, high = bootstrap_interval(strata, iqm)
        said += f" (95% interval {low:.3g} to {high:.3g})"
    return "; ".join([said, *evidence.cautions(best)])


def _runs_section(runs: StudyRuns) -> Section:
    names = ["name", "task", "model_size", "setting", "seed", "status", "stopped_early", "env_steps"]
    table = runs.trials[[*names, "hours", "final", "best"]].assign(
        **{RUN_IDS: [(run_id,) for run_id in runs.trials["run_id"]]}
    )
    table = with_random(table, runs.random_rows("final"))
    text = "Every run that the numbers above are computed from, as MLflow has it."
    return Section("runs", "Runs", (text,), table=table.dropna(axis="columns", how="all"))
