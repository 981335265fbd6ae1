"""The options of `tdmpc-ray train`."""

from typing import Annotated

import typer

TaskOption = Annotated[
    str | None,
    typer.Option(help="What to learn: walker-walk, cup-catch, mw-reach, gym:Pendulum-v1, ..."),
]
ObsOption = Annotated[str, typer.Option(help="state, or rgb: cameras of DMControl and Meta-World.")]
AlgorithmOption = Annotated[str, typer.Option(help="tdmpc2, tdmpc, or MODULE:AGENT for one of your own.")]
ModelSizeOption = Annotated[
    str | None,
    typer.Option(help="tiny, 1, 5, 19, 48 or 317: million parameters. Default: 5 of TD-MPC2, 1 of TD-MPC."),
]
StepsOption = Annotated[int | None, typer.Option(help="Agent steps, one action each.")]
PresetOption = Annotated[str, typer.Option(help="paper: as published; light: for CPUs.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as update.lr=1e-3; repeatable."),
]
NumEnvRunnersOption = Annotated[
    int, typer.Option(help="Processes that act; 0: the one that learns acts, too.")
]
NumEnvsPerEnvRunnerOption = Annotated[int, typer.Option(help="Environments in each of them.")]
NumLearnersOption = Annotated[
    int, typer.Option(help="Processes that learn; 0: the trial's main process learns.")
]
NumGpusOption = Annotated[
    float, typer.Option(help="GPUs for learning, and for acting where no other process acts.")
]
GpusPerEnvRunnerOption = Annotated[
    float, typer.Option(help="GPUs for each process that acts; fractions share one.")
]
StartFromOption = Annotated[
    str | None, typer.Option(help="A checkpoint, or the folder of a run, whose networks to begin with.")
]
SeedOption = Annotated[int, typer.Option(help="Of environments, weights and exploration.")]
EvalEveryOption = Annotated[int, typer.Option(help="Agent steps between evaluations; one more at the end.")]
EvalEpisodesOption = Annotated[int, typer.Option(help="Episodes per evaluation.")]
VideosOption = Annotated[bool, typer.Option("--videos", help="Film an episode at the end.")]
CheckpointEveryOption = Annotated[
    int | None,
    typer.Option(help="Agent steps between checkpoints. Default: a tenth of all, 5,000 at most."),
]
ExperimentOption = Annotated[str, typer.Option(help="Experiment in MLflow.")]
NameOption = Annotated[
    str | None, typer.Option(help="Of the run. Default: task, size, seed, and what else is set.")
]
