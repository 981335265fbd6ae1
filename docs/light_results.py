"""Draws runs of the light preset: docs/images/light.png over the published code's under the same settings,
and docs/images/light_bf16.png, planning in bf16 over planning in fp32.

tdmpc-ray tune experiments/light_walker_walk.yaml
python docs/light_results.py --study light-walker-walk --label "in turns"  # and draw
python docs/light_results.py                                                 # draw again
python docs/light_results.py --data light_bf16 --study bf16-walker-walk --label bf16
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

DOCS = Path(__file__).parent
BASELINE, BASELINE_NAME = DOCS / "data/light_baseline.csv", "published code"
# Files of docs/data to images that they are drawn into.
IMAGES = {"light_tdmpc_ray": "light.png", "light_bf16": "light_bf16.png"}
EVERY, LAST = 2_500, 15_000


def export(study: str, experiment: str, uri: str) -> pd.DataFrame:
    """Evaluations of the newest run of a study, in the baseline's columns."""
    from mlflow.tracking import MlflowClient

    from tdmpc_ray.studies.results.study_runs import load_study_runs

    client, rows = MlflowClient(uri), []
    runs = load_study_runs(experiment, uri, study)
    for run_id, curve in runs.curves.groupby("run_id"):
        wall = {p.step: p.value for p in client.get_metric_history(run_id, "time/wall_s")}
        for point in curve.itertuples():
            steps = point.env_steps // EVERY * EVERY  # when it was due
            value, seconds = round(point.value, 1), round(wall[point.env_steps])
            frames = steps * runs.frames_per_step(point.task)
            rows.append((study, point.task, int(point.seed), steps, frames, value, seconds))
    columns = ["study", "task", "seed", "agent_steps", "env_frames", "eval_return", "wall_s"]
    return pd.DataFrame(rows, columns=columns)


def merge(new: pd.DataFrame, file: Path) -> None:
    """Put a study's rows into a data file, in the place of older ones of the same task and seeds."""
    key = ["study", "task", "seed"]
    old = pd.read_csv(file)
    known = old.set_index(key).index.isin(new.set_index(key).index)
    table = pd.concat([old[~known], new])
    table.sort_values(["task", "study", "seed", "agent_steps"]).to_csv(file, index=False)


def draw(table: pd.DataFrame, image: str) -> None:
    """One panel per task: a thin line per seed, a thick one for their mean."""
    tasks = list(table.task.unique())
    figure, axes = plt.subplots(1, len(tasks), figsize=(5 * len(tasks), 3.6), squeeze=False, sharey=True)
    studies = [BASELINE_NAME, *table.study[table.study != BASELINE_NAME].unique()]
    for axis, task in zip(axes[0], tasks, strict=True):
        for name, curves in table[table.task == task].groupby("study"):
            colour = "0.55" if name == BASELINE_NAME else f"C{studies.index(name) - 1}"
            for _, curve in curves.groupby("seed"):
                axis.plot(curve.agent_steps, curve.eval_return, color=colour, alpha=0.35, linewidth=1)
            mean = curves.groupby("agent_steps").eval_return.mean()
            label = f"{name}, mean of {curves.seed.nunique()}"
            axis.plot(
                mean.index, mean.values, color=colour, linewidth=2, marker="o", markersize=4, label=label
            )
        axis.set(title=task, xlabel="agent steps (2 frames each)", ylim=(0, 1000))
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, loc="best", fontsize="small")
    axes[0][0].set_ylabel("evaluation return")
    figure.tight_layout()
    figure.savefig(DOCS / "images" / image, dpi=160)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", choices=IMAGES, default="light_tdmpc_ray", help="file of docs/data")
    parser.add_argument("--study", help="study to export from MLflow first")
    parser.add_argument("--label", help="its name in the data and the figure")
    parser.add_argument("--uri", default="sqlite:///mlflow.db", help="address of MLflow")
    parser.add_argument("--experiment", default="tdmpc-ray")
    arguments = parser.parse_args()
    file = DOCS / f"data/{arguments.data}.csv"
    if arguments.study:
        rows = export(arguments.study, arguments.experiment, arguments.uri)
        merge(rows.assign(study=arguments.label or arguments.study), file)
    table = pd.read_csv(file)
    if arguments.data == "light_tdmpc_ray":
        table = pd.concat([pd.read_csv(BASELINE).assign(study=BASELINE_NAME), table])
    table = table[table.agent_steps <= LAST]
    draw(table, IMAGES[arguments.data])
    pivot = table.pivot_table(index=["task", "study", "seed"], columns="agent_steps", values="eval_return")
    print(pivot.to_string())
    print("\nmean of the evaluations from 10,000 steps on, and the best one")
    late = table[table.agent_steps >= 10_000].groupby(["task", "study", "seed"]).eval_return.mean()
    print(
        pd.DataFrame(
            {"late": late, "best": table.groupby(["task", "study", "seed"]).eval_return.max()}
        ).round(1)
    )


if __name__ == "__main__":
    from tdmpc_ray.errors import UserError

    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
