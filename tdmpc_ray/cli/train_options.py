"""The options of `tdmpc-ray train`."""

from typing import Annotated

import typer

from tdmpc_ray.core.agents import NAMES, find_settings


def _tasks(incomplete: str) -> list[str]:
    from tdmpc_ray.envs import list_tasks

    return [name for name in list_tasks() if name.startswith(incomplete)]


def _algorithms(incomplete: str) -> list[str]:
    return [name for name in NAMES if name.startswith(incomplete)]


def _sizes(incomplete: str) -> list[str]:
    sizes = dict.fromkeys(size for name in NAMES for size in find_settings(name).sizes)
    return [size for size in sizes if size.startswith(incomplete)]


def _presets(incomplete: str) -> list[str]:
    presets = dict.fromkeys(preset for name in NAMES for preset in find_settings(name).presets)
    return [preset for preset in presets if preset.startswith(incomplete)]


def _settings(incomplete: str) -> list[str]:
    keys = dict.fromkeys(key for name in NAMES for key in find_settings(name).keys)
    return [f"{key}=" for key in keys if key.startswith(incomplete)]


TaskOption = Annotated[
    str | None,
    typer.Option(
        help="What to learn: walker-walk, cup-catch, mw-reach, gym:Pendulum-v1, ...", autocompletion=_tasks
    ),
]
ObsOption = Annotated[str, typer.Option(help="state, or rgb: cameras of DMControl and Meta-World.")]
RewardOption = Annotated[str, typer.Option(help="dense, or sparse: success - 1, of Meta-World.")]
AlgorithmOption = Annotated[
    str, typer.Option(help="tdmpc2, tdmpc, or MODULE:AGENT for one of your own.", autocompletion=_algorithms)
]
ModelSizeOption = Annotated[
    str | None,
    typer.Option(
        help="Million parameters: tiny, or 0.05 to 317. Default: 5 of TD-MPC2, 1 of TD-MPC.",
        autocompletion=_sizes,
    ),
]
StepsOption = Annotated[int | None, typer.Option(help="Agent steps, one action each.")]
UpdatesOption = Annotated[
    int | None, typer.Option(help="Instead of steps, with --set data.dataset=DIR: learn from it alone.")
]
PresetOption = Annotated[
    str, typer.Option(help="paper: as published; light: for CPUs.", autocompletion=_presets)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting, such as update.lr=1e-3; repeatable.",
        autocompletion=_settings,
    ),
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
EmbedAsOption = Annotated[
    str | None, typer.Option(help="The task of --start-from whose embedding to begin with, mean or best.")
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
