"""Commands that train: one agent, or a study of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tdmpc_ray.addresses import refuse_address
from tdmpc_ray.cli.cluster import BesideOption, CodeOption, ThereOption, again_there
from tdmpc_ray.cli.common import JsonOption, MLflowOption, make_console, parse_settings
from tdmpc_ray.cli.slurm import SbatchOption, SlurmOption, check_options, submit_batch_job
from tdmpc_ray.cli.train_options import (
    AlgorithmOption,
    CheckpointEveryOption,
    EmbedAsOption,
    EvalEpisodesOption,
    EvalEveryOption,
    ExperimentOption,
    GpusPerEnvRunnerOption,
    ModelSizeOption,
    NameOption,
    NumEnvRunnersOption,
    NumEnvsPerEnvRunnerOption,
    NumGpusOption,
    NumLearnersOption,
    ObsOption,
    PresetOption,
    RewardOption,
    SeedOption,
    SetOption,
    StartFromOption,
    StepsOption,
    TaskOption,
    UpdatesOption,
    VideosOption,
)
from tdmpc_ray.core.agents import DEFAULT_AGENT, find_settings
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.tracking.client import DEFAULT_URI, absolute_uri

OutOption = Annotated[
    str | None,
    typer.Option(
        help="Folder for the results, or an address such as s3://bucket/name; new or empty. "
        "Default: results/NAME-TIME."
    ),
]

# Keys of a study to the options of `train` that set them.
_OPTIONS = {
    "name": "--name",
    "task": "--task",
    "obs": "--obs",
    "reward": "--reward",
    "preset": "--preset",
    "algorithm": "--algorithm",
    "model_sizes": "--model-size",
    "seeds.0": "--seed",
    "steps": "--steps",
    "updates": "--updates",
    "set": "--set",
    "start_from": "--start-from",
    "embed_as": "--embed-as",
    "evaluation.every": "--eval-every",
    "evaluation.episodes": "--eval-episodes",
    "evaluation.videos": "--videos",
    "resources.num_env_runners": "--num-env-runners",
    "resources.num_envs_per_env_runner": "--num-envs-per-env-runner",
    "resources.num_learners": "--num-learners",
    "resources.gpus_per_learner": "--num-gpus",
    "resources.gpus_per_env_runner": "--gpus-per-env-runner",
    "checkpoint.every": "--checkpoint-every",
    "tracking.experiment": "--experiment",
}


def train(
    task: TaskOption = None,
    obs: ObsOption = "state",
    reward: RewardOption = "dense",
    algorithm: AlgorithmOption = DEFAULT_AGENT,
    model_size: ModelSizeOption = None,
    steps: StepsOption = None,
    updates: UpdatesOption = None,
    preset: PresetOption = "paper",
    set_: SetOption = None,
    num_env_runners: NumEnvRunnersOption = 0,
    num_envs_per_env_runner: NumEnvsPerEnvRunnerOption = 1,
    num_learners: NumLearnersOption = 0,
    num_gpus: NumGpusOption = 0,
    gpus_per_env_runner: GpusPerEnvRunnerOption = 0,
    start_from: StartFromOption = None,
    embed_as: EmbedAsOption = None,
    seed: SeedOption = 0,
    eval_every: EvalEveryOption = 50_000,
    eval_episodes: EvalEpisodesOption = 10,
    videos: VideosOption = False,
    checkpoint_every: CheckpointEveryOption = None,
    mlflow_uri: MLflowOption = DEFAULT_URI,
    experiment: ExperimentOption = "tdmpc-ray",
    name: NameOption = None,
    out: OutOption = None,
) -> int:
    """Train one agent on one task.

    Example: tdmpc-ray train --task walker-walk --model-size 1 --preset light --steps 20000

    Ctrl-C saves a checkpoint first; `tdmpc-ray resume` goes on.
    """
    if task is None:
        raise UserError("train needs --task, such as --task walker-walk")
    if steps is None and updates is None:
        raise UserError("train needs --steps, such as --steps 100000")
    values: dict[str, Any] = {
        "task": task,
        "obs": obs,
        "reward": reward,
        "preset": preset,
        "algorithm": algorithm,
        "model_sizes": [find_settings(algorithm).size if model_size is None else model_size],
        "seeds": [seed],
        **({"steps": steps} if updates is None else {"updates": updates}),
        "set": parse_settings(set_ or []),
        "start_from": start_from,
        "embed_as": embed_as,
        "evaluation": {"every": eval_every, "episodes": eval_episodes, "videos": videos},
        "resources": {
            "num_env_runners": num_env_runners,
            "num_envs_per_env_runner": num_envs_per_env_runner,
            "num_learners": num_learners,
            "gpus_per_learner": num_gpus / max(num_learners, 1),
            "gpus_per_env_runner": gpus_per_env_runner,
        },
        "checkpoint": {"every": checkpoint_every},
        "tracking": {"uri": mlflow_uri, "experiment": experiment},
    }
    return _run(values, name, out)


def _run(values: dict[str, Any], name: str | None, out: str | None) -> int:
    from tdmpc_ray.studies.file.load import make_study
    from tdmpc_ray.studies.file.names import run_name
    from tdmpc_ray.studies.file.python_path import folder_of_task, use_folder
    from tdmpc_ray.studies.file.spec import Study

    modules = folder_of_task(values["task"])
    if modules is not None:
        use_folder(modules)
    name = run_name(values, Study.defaults()) if name is None else name
    study = make_study({"name": name, **values}, _OPTIONS)
    from tdmpc_ray.studies.run.runner import run_study

    folder = out or _default_out(study.name)
    return run_study(study, folder, modules=modules, console=make_console()).exit_status


def tune(
    file: Annotated[Path | None, typer.Argument(metavar="FILE.yaml", help="The study.")] = None,
    out: OutOption = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of all trials; repeatable."),
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Instead of the file's seeds; repeatable.")] = None,
    name: Annotated[str | None, typer.Option(help="Instead of the file's.")] = None,
    mlflow_uri: Annotated[str | None, typer.Option(help="Address of MLflow instead of the file's.")] = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would start, and how long that takes; no more.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Run a study file and compare its trials.

    A study varies model sizes, seeds and settings; experiments/ has some to begin with.

    Options replace what the file says. --json goes with --dry-run.

    Example: tdmpc-ray tune experiments/quickstart.yaml
    """
    if file is None:
        raise UserError("tune needs a study file, such as experiments/quickstart.yaml")
    if as_json and not dry:
        raise UserError("--json goes with --dry-run; how a study stands that runs, its result.json says")
    from tdmpc_ray.studies.file.load import load_changed
    from tdmpc_ray.studies.file.python_path import use_folder_of

    use_folder_of(file)
    given = {
        "name": name,
        "seeds": seed,
        "set": parse_settings(set_ or []),
        "tracking": {} if mlflow_uri is None else {"uri": mlflow_uri},
    }
    study = load_changed(file, {key: value for key, value in given.items() if value})
    if dry:
        from tdmpc_ray.cli.planning import print_plan

        print_plan(study, as_json)
        return 0
    from tdmpc_ray.studies.run.runner import run_study

    return run_study(
        study, out or _default_out(study.name), study_file=file, console=make_console()
    ).exit_status


def resume(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="The --out folder of `train` or `tune`, or what `submit` printed."
        ),
    ],
    address: ThereOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="With --address: show its output to the end.")] = False,
    with_code: CodeOption = False,
    beside: BesideOption = None,
    steps: Annotated[int | None, typer.Option(help="Agent steps per trial, more than before.")] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="0,1,2", help="Seeds, with others than before among them.")
    ] = None,
    mlflow_uri: Annotated[
        str | None, typer.Option(help="Address of MLflow from now on; on a cluster, as that sees it.")
    ] = None,
    slurm: SlurmOption = False,
    sbatch_options: SbatchOption = "",
) -> int:
    """Continue what was stopped or killed, or do more of it.

    It goes on as it was begun, from its newest whole checkpoints with replay, optimizers and counters, in the
    same runs of MLflow; trials that have failed are tried again. Where study.yaml in the folder has more
    steps, seeds, num_samples, model_sizes, tasks or values of a grid than before, these are done as well. A
    new run with --start-from takes over the networks alone.

    Example: tdmpc-ray resume results/walker-walk-size1-seed0-light-20261121-120000-3f9a51
    """
    of_ray = {"--address": address, "--wait": wait, "--with-code": with_code, "--with": beside}
    changes_it = {"--steps": steps is not None, "--seeds": seeds, "--mlflow-uri": mlflow_uri}
    check_options(slurm, for_slurm={"--sbatch-options": sbatch_options}, for_ray=of_ray | changes_it)
    if slurm:
        from tdmpc_ray.studies.file.files import STUDY_FILE, existing

        refuse_address(Path(folder))
        out = existing(Path(folder))
        return submit_batch_job(out / STUDY_FILE, out, sbatch_options)
    if address is not None:
        more = [
            f"--{name}={value}" for name, value in (("steps", steps), ("seeds", seeds)) if value is not None
        ]
        sent: dict[str, Any] = {"with_code": with_code, "beside": beside or []}
        return again_there(folder, address, wait, **sent, more=more, mlflow_uri=mlflow_uri)
    from tdmpc_ray.studies.run.runner import resume_study

    changes: dict[str, Any] = {} if steps is None else {"steps": steps}
    if seeds is not None:
        changes["seeds"] = [int(part) if part.strip().isdigit() else part for part in seeds.split(",")]
    if mlflow_uri is not None:
        changes["tracking"] = {"uri": absolute_uri(mlflow_uri)}
    return resume_study(folder, changes=changes, console=make_console()).exit_status


def _default_out(name: str) -> Path:
    from tdmpc_ray.studies.file.names import new_name

    return Path("results") / new_name(name)
