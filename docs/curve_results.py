"""Records studies in docs/data/curves.csv, and draws the figures of docs/results.md from that file.

tdmpc-ray tune experiments/curve_walker_walk.yaml
python docs/curve_results.py --record curve-walker-walk    # and draw
python docs/curve_results.py                               # draw again
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

from tdmpc_ray.envs import random_return, task_info
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.results.drawing import STYLE, label_lines
from tdmpc_ray.studies.results.published import against_published, published_curves, published_figure
from tdmpc_ray.studies.results.study_runs import StudyRuns, load_study_runs

DOCS = Path(__file__).parent
FILE = DOCS / "data/curves.csv"
KEY = ["study", "task", "seed"]
PIXELS = "curve-pixels"
MULTITASK = "multitask-small"
# Study to what it lacks; the first is the whole.
ABLATIONS = {
    "curve-walker-walk": "complete",
    "ablation-policy": "no planning",
    "ablation-simnorm": "no SimNorm",
    "ablation-mse": "squared error",
}


def record(study: str, experiment: str, uri: str) -> pd.DataFrame:
    """Evaluations of the newest run of a study, a row each; of a set of tasks, a row for each task."""
    from mlflow.tracking import MlflowClient

    client, rows = MlflowClient(uri), []
    runs = load_study_runs(experiment, uri, study)
    for trial in runs.trials.to_dict("records"):
        history = {
            name: {point.step: point.value for point in client.get_metric_history(trial["run_id"], name)}
            for name in ("time/wall_s", "time/env_frames")
        }
        members = task_info(trial["task"]).tasks
        for task in members or (trial["task"],):
            metric = f"eval/{task}/return" if members else runs.metric
            random = fmean(random_return(task, 5, seed=0))
            rows += [
                {
                    "study": study,
                    "task": task,
                    "metric": "eval/return" if members else runs.metric,
                    "model_size": trial["model_size"],
                    "seed": int(trial["seed"]),
                    "status": trial["status"],
                    "env_steps": point.step,
                    "env_frames": int(history["time/env_frames"][point.step]),
                    "value": round(point.value, 2),
                    "wall_s": round(history["time/wall_s"][point.step]),
                    "random_return": round(random, 1),
                }
                for point in client.get_metric_history(trial["run_id"], metric)
            ]
    return pd.DataFrame(rows)


def merge(new: pd.DataFrame) -> pd.DataFrame:
    """Put rows into the data file, in the place of older ones of the same study, task and seed."""
    old = pd.read_csv(FILE, dtype={"model_size": str}) if FILE.exists() else new.iloc[:0]
    known = old.set_index(KEY).index.isin(new.set_index(KEY).index)
    table = pd.concat([old[~known], new]).sort_values([*KEY, "env_steps"])
    table.to_csv(FILE, index=False)
    return table


def as_runs(rows: pd.DataFrame, metric: str) -> StudyRuns:
    """The rows as if they were read from MLflow."""
    curves = rows.assign(run_id=rows[KEY].astype(str).agg(" ".join, axis=1), setting="")
    trials = curves.groupby("run_id", as_index=False).last()
    trials = trials.assign(
        final=trials["value"], stopped_early="", params=trials["model_size"].astype(float) * 1e6
    )
    return StudyRuns("", "size 1, light preset, seed 1", (), trials, curves, {}, metric)


def draw_ablations(table: pd.DataFrame) -> None:
    """Evaluations of walker-walk with and without each part."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.5, 4.4), layout="constrained")
        last = table[table.study.isin(list(ABLATIONS)[1:])].env_steps.max()
        for number, (study, label) in enumerate(ABLATIONS.items()):
            for _, curve in table[(table.study == study) & (table.env_steps <= last)].groupby("seed"):
                colour = "#222222" if number == 0 else f"C{number - 1}"
                axes.plot(curve.env_steps, curve.value, "o-", markersize=4, color=colour, label=label)
        axes.set(title="walker-walk", xlabel="agent steps (2 frames each)", ylim=(0, 1000))
        axes.set_ylabel("return in evaluation")
        label_lines(axes)
        figure.savefig(DOCS / "images/ablations.png", dpi=160)


def draw_multitask(table: pd.DataFrame) -> None:
    """One model's evaluations of each of its tasks, with the random policy's return as a dashed line."""
    with plt.rc_context(STYLE):
        groups = list(table.groupby("task"))
        figure, panels = plt.subplots(1, len(groups), figsize=(3.4 * len(groups), 3.4), layout="constrained")
        for axes, (task, curve) in zip(panels, groups, strict=True):
            axes.plot(curve.env_steps, curve.value, "o-", markersize=4)
            axes.axhline(curve.random_return.iloc[0], linestyle="--", color="#888888")
            axes.set(title=task, xlabel="agent steps, all tasks", ylim=(0, 1000))
        panels[0].set_ylabel("return in evaluation")
        figure.supxlabel("dashed: random policy", fontsize=8, color="#888888")
        figure.savefig(DOCS / "images/multitask.png", dpi=160)


def draw_curves(table: pd.DataFrame) -> None:
    """Single tasks over the published curves; prints the table of docs/results.md."""
    curves = table[table.study.str.startswith("curve-")]
    print("| task | frames | size 1, seed 1 | published, size 5 | ratio | hours |\n|---|---|---|---|---|---|")
    parts = [
        ("curves_return.png", "tdmpc2", "eval/return", curves[curves.study != PIXELS]),
        ("curves_success.png", "tdmpc2", "eval/success", curves),
        ("curves_pixels.png", "tdmpc2-pixels", "eval/return", curves[curves.study == PIXELS]),
    ]
    for image, algorithm, metric, rows in parts:
        rows = rows[rows.metric == metric]
        known = {task for task in rows.task if len(published_curves(algorithm, task, metric))}
        for task, curve in rows[~rows.task.isin(known)].groupby("task"):
            last = curve.iloc[-1]
            print(f"| {task} | {last.env_frames:,} | {last.value:.4g} | | | {last.wall_s / 3600:.1f} |")
        if not known:
            continue
        runs = as_runs(rows[rows.task.isin(known)], metric)
        published_figure(runs, [algorithm]).savefig(DOCS / "images" / image, dpi=160)
        for row in against_published(runs, [algorithm]).to_dict("records"):
            hours = runs.curves[runs.curves.task == row["task"]].wall_s.max() / 3600
            is_known = row["published"] > 0
            shown = f"{row['published']:.4g} | {row['value'] / row['published']:.2f}" if is_known else " | "
            print(f"| {row['task']} | {row['env_frames']:,} | {row['value']:.4g} | {shown} | {hours:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--record", nargs="+", metavar="STUDY", default=[], help="take studies from MLflow")
    parser.add_argument("--uri", default="sqlite:///mlflow.db", help="address of MLflow")
    parser.add_argument("--experiment", default="tdmpc-ray")
    arguments = parser.parse_args()
    for study in arguments.record:
        merge(record(study, arguments.experiment, arguments.uri))
    if not FILE.exists():
        raise UserError("nothing is recorded yet: give --record STUDY")
    table = pd.read_csv(FILE, dtype={"model_size": str})
    draw_curves(table)
    if table.study.isin(list(ABLATIONS)[1:]).any():
        draw_ablations(table[table.study.isin(list(ABLATIONS))])
    if (table.study == MULTITASK).any():
        draw_multitask(table[table.study == MULTITASK])


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
