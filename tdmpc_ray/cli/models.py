"""Commands about models in MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Uri = Annotated[
    str | None,
    typer.Option(
        envvar="MLFLOW_TRACKING_URI", help="Address of MLflow. Default: where the study was tracked."
    ),
]


def register(
    source: Annotated[
        Path, typer.Argument(help="A checkpoint, or the folder of a run or study: its best one.")
    ],
    name: Annotated[str, typer.Option(help="Of the model in MLflow; made if absent.")],
    alias: Annotated[str | None, typer.Option(help="Name for the new version, such as champion.")] = None,
    mlflow_uri: Uri = None,
) -> None:
    """Register a trained agent as an MLflow model.

    Of several checkpoints it takes the one with the best evaluation. Each call makes a new version.

    Example: tdmpc-ray register results/my-study --name walker --alias champion
    """
    from tdmpc_ray.studies.cluster import quiet

    quiet()
    from tdmpc_ray.studies.mlflow_client import public_uri
    from tdmpc_ray.studies.models import register as add

    done = add(source, name, alias, mlflow_uri)
    named = f", alias {done.alias}" if done.alias else ""
    print(f"checkpoint: {done.checkpoint}")
    print(f"registered: {done.name}, version {done.version}{named}; run {done.run_id}")
    print("load it with:")
    print(f'  mlflow.set_tracking_uri("{public_uri(done.uri)}")')
    print(f'  model = mlflow.pyfunc.load_model("{done.model_uri}")')


def log_models(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out folder of `train` or `tune`.")],
    mlflow_uri: Uri = None,
) -> None:
    """Log the best checkpoint of each trial of a study to MLflow.

    Doing it twice changes nothing.

    Example: tdmpc-ray log-models results/my-study
    """
    from tdmpc_ray.studies.cluster import quiet

    quiet()
    from tdmpc_ray.studies.models import log_best_models
    from tdmpc_ray.studies.outcome import count

    logged = log_best_models(folder, uri=mlflow_uri, timeout_s=3600, say=print)
    print(f"in MLflow: {count(logged, 'model')}")
