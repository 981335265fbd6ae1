"""Commands that put trained agents to use: models in MLflow, and a server."""

from __future__ import annotations

from typing import Annotated

import typer

from tdmpc_ray.cli.common import MLflowOption, parse_settings
from tdmpc_ray.studies.tracking.client import DEFAULT_URI

Uri = Annotated[
    str | None,
    typer.Option(
        help="Address of MLflow. Default: where the study was tracked; without one, MLFLOW_TRACKING_URI."
    ),
]


def register(
    source: Annotated[
        str, typer.Argument(help="A checkpoint, or the folder of a run or study: its best one.")
    ],
    name: Annotated[str, typer.Option(help="Of the model in MLflow; made if absent.")],
    alias: Annotated[str | None, typer.Option(help="Name for the new version, such as champion.")] = None,
    mlflow_uri: Uri = None,
) -> None:
    """Register a trained agent as an MLflow model.

    Of several checkpoints it takes the one with the best evaluation, by the metric of the study, Tuner or
    task. Each call makes a new version.

    Example: tdmpc-ray register results/my-study --name walker --alias champion
    """
    from tdmpc_ray.studies.run.cluster import quiet

    quiet()
    from tdmpc_ray.studies.models.register import register as add
    from tdmpc_ray.studies.tracking.client import public_uri

    done = add(source, name, alias, mlflow_uri)
    named = f", alias {done.alias}" if done.alias else ""
    print(f"checkpoint: {done.checkpoint}")
    print(f"registered: {done.name}, version {done.version}{named}; run {done.run_id}")
    print("load it with:")
    print(f'  mlflow.set_tracking_uri("{public_uri(done.uri)}")')
    print(f'  model = mlflow.pyfunc.load_model("{done.model_uri}")')


def log_models(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The --out folder of `train` or `tune`.")],
    mlflow_uri: Uri = None,
) -> int:
    """Log the best models of a study to MLflow.

    That is the best checkpoint of each trial, to the trial's own run; nothing is registered. Doing it twice
    changes nothing. The exit status is 1 where one is missing.

    Example: tdmpc-ray log-models results/my-study
    """
    from tdmpc_ray.studies.run.cluster import quiet

    quiet()
    from tdmpc_ray.studies.models.register import log_best_models
    from tdmpc_ray.studies.words import count

    logged, missing = log_best_models(folder, uri=mlflow_uri, timeout_s=3600, say=print)
    print(f"in MLflow: {count(logged, 'model')}")
    return int(missing > 0)


def serve(
    source: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="models:/NAME@ALIAS, models:/NAME/VERSION, or a checkpoint."),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0: all of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="To listen at.")] = 8000,
    replicas: Annotated[int, typer.Option(min=1, help="Processes that plan.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Of PyTorch, in each of them.")] = 1,
    num_gpus: Annotated[float, typer.Option(min=0, help="GPUs for each of them.")] = 0,
    max_batch: Annotated[int, typer.Option(min=1, help="Sessions that are planned for at once.")] = 32,
    batch_wait_ms: Annotated[float, typer.Option(min=0, help="How long a batch waits to be filled.")] = 10.0,
    max_sessions: Annotated[int, typer.Option(min=1, help="That each process remembers.")] = 1000,
    idle_s: Annotated[float, typer.Option(min=1, help="Seconds until a session is forgotten.")] = 600.0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the planner; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the planner's noise.")] = 0,
    mlflow_uri: MLflowOption = DEFAULT_URI,
) -> int:
    """Serve a trained agent by HTTP, on a Ray of its own.

    Each client session has its own plan; sessions that ask at the same time are planned for together.
    Ctrl-C ends it. TDMPC_RAY_SERVE_TOKEN holds the token that requests must bear; none without it.

    Example: tdmpc-ray serve models:/walker@champion --port 8000
    """
    import signal

    from tdmpc_ray.studies.run.cluster import quiet

    quiet()
    from tdmpc_ray.serving.options import ServeOptions
    from tdmpc_ray.serving.run import serve_agent

    options = ServeOptions(
        settings=parse_settings(set_ or []),
        seed=seed,
        replicas=replicas,
        threads=threads,
        num_gpus=num_gpus,
        max_batch=max_batch,
        batch_wait_s=batch_wait_ms / 1e3,
        max_sessions=max_sessions,
        idle_s=idle_s,
    )

    def say(line: str) -> None:
        print(line, flush=True)

    signum = serve_agent(source, options, mlflow_uri=mlflow_uri, host=host, port=port, say=say)
    return 128 + signum if signum == signal.SIGINT else 0
