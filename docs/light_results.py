"""Draws docs/images/light.png: runs of the light preset over the published code's, same settings.

tdmpc-ray tune experiments/light_walker_walk.yaml
tdmpc-ray tune experiments/light_cartpole_balance.yaml
python docs/light_results.py --uri sqlite:///mlflow.db   # once more into docs/data, then draw
python docs/light_results.py                             # draw what docs/data holds
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

DOCS = Path(__file__).parent
OURS, BASELINE = DOCS / "data/light_tdmpc_ray.csv", DOCS / "data/light_baseline.csv"
TASKS = {"walker-walk": "light-walker-walk", "cartpole-balance": "light-cartpole-balance"}


def export(experiment: str, uri: str) -> pd.DataFrame:
    """Evaluations of the newest run of both studies, as the baseline's columns."""
    from mlflow.tracking import MlflowClient

    from tdmpc_ray.studies.study_runs import load_study_runs

    client, rows = MlflowClient(uri), []
    for task, study in TASKS.items():
        runs = load_study_runs(experiment, uri, study)
        for run_id, curve in runs.curves.groupby("run_id"):
            wall = {p.step: p.value for p in client.get_metric_history(run_id, "time/wall_s")}
            for point in curve.itertuples():
                frames = point.env_steps * runs.frames_per_step
                value, seconds = round(point.value, 1), round(wall[point.env_steps])
                rows.append((task, int(point.seed), point.env_steps, frames, value, seconds))
    columns = ["task", "seed", "agent_steps", "env_frames", "eval_return", "wall_s"]
    return pd.DataFrame(rows, columns=columns).sort_values(["task", "seed", "agent_steps"])


def draw(ours: pd.DataFrame, baseline: pd.DataFrame) -> None:
    tasks = [task for task in TASKS if task in set(ours.task)]
    figure, axes = plt.subplots(1, len(tasks), figsize=(5 * len(tasks), 3.6), squeeze=False, sharey=True)
    for axis, task in zip(axes[0], tasks, strict=True):
        for table, colour, label in (
            (baseline, "0.55", "published code"),
            (ours, "C0", "tdmpc_ray on RLlib"),
        ):
            curves = table[(table.task == task) & (table.agent_steps <= 17_500)]
            for _, curve in curves.groupby("seed"):
                axis.plot(curve.agent_steps, curve.eval_return, color=colour, alpha=0.35, linewidth=1)
            mean = curves.groupby("agent_steps").eval_return.mean()
            name = f"{label}, mean of {curves.seed.nunique()}"
            axis.plot(
                mean.index, mean.values, color=colour, linewidth=2, marker="o", markersize=4, label=name
            )
        axis.set(title=task, xlabel="agent steps (2 frames each)", ylim=(0, 1000))
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, loc="lower right")
    axes[0][0].set_ylabel("return of 10 evaluation episodes (baseline: 3)")
    figure.tight_layout()
    figure.savefig(DOCS / "images/light.png", dpi=160)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--uri", help="MLflow to export from first")
    parser.add_argument("--experiment", default="tdmpc-ray")
    arguments = parser.parse_args()
    if arguments.uri:
        export(arguments.experiment, arguments.uri).to_csv(OURS, index=False)
    ours = pd.read_csv(OURS)
    draw(ours, pd.read_csv(BASELINE))
    print(ours.pivot_table(index=["task", "seed"], columns="agent_steps", values="eval_return"))


if __name__ == "__main__":
    main()
