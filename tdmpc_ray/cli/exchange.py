"""Commands that turn checkpoints into files for others, and the other way."""

from __future__ import annotations

import shutil
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tdmpc_ray.core.agents import DEFAULT_AGENT
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.names import file_name

IMPORTED = "imported"


class FileFormat(StrEnum):
    torch = "torch"
    onnx = "onnx"

    @property
    def suffix(self) -> str:
        return {"torch": ".pt2", "onnx": ".onnx"}[self]


class Kind(StrEnum):
    policy = "policy"
    planner = "planner"


def import_official(
    file: Annotated[Path, typer.Argument(metavar="FILE.pt", help="A checkpoint of the published code.")],
    task: Annotated[str, typer.Option(help="What it was trained on, such as walker-walk.")],
    out: Annotated[Path, typer.Option(help="Folder for it; new or empty.")],
    steps: Annotated[int, typer.Option(min=1, help="Agent steps that `resume` trains.")] = 1_000_000,
    algorithm: Annotated[str, typer.Option(help="Whose code wrote it: tdmpc2 or tdmpc.")] = DEFAULT_AGENT,
) -> None:
    """Import a checkpoint of the published code.

    Its folder can be evaluated, and trained on: with new optimizers and an empty replay, because the
    published code saves neither.

    Example: tdmpc-ray import-official walker.pt --task walker-walk --out results/published
    """
    from tdmpc_ray.studies.run.cluster import quiet

    quiet()
    from tdmpc_ray.envs import task_info
    from tdmpc_ray.rllib.published import import_official as convert
    from tdmpc_ray.studies.file.folder import begin, only_process, require_empty
    from tdmpc_ray.studies.file.load import make_study

    if out.exists() and not out.is_dir():
        raise UserError(f"cannot write to {out}: it is a file; choose another --out")
    require_empty(out)
    name = task_info(task).name
    with tempfile.TemporaryDirectory() as temporary:
        obs, size, settings = convert(file, name, Path(temporary) / IMPORTED, algorithm)
        study = make_study(
            {
                "name": file_name(f"{name}-published"),
                "task": name,
                "algorithm": algorithm,
                "obs": obs,
                "model_sizes": [size],
                "set": settings,
                "steps": steps,
                "start_from": str(out / IMPORTED),
            },
            {"steps": "--steps"},
        )
        with only_process(out, makes=True):
            require_empty(out)  # another process may have begun here
            try:
                shutil.move(Path(temporary) / IMPORTED, out / IMPORTED)
            except OSError as error:
                raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from None
            begin(study, out, None)
    differing = f", with {settings}" if settings else ""
    print(f"imported: model size {size}{differing}; it plans as published (preset paper)")
    print(f"play it with: tdmpc-ray evaluate {out}")
    print(f"train it on with: tdmpc-ray resume {out}")


def export_official(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint, or the folder of a run: its newest one.")],
    file: Annotated[Path, typer.Argument(metavar="FILE.pt", help="The file to write.")],
    flat: Annotated[
        bool, typer.Option(help="TD-MPC2: number the heads' parameters, as older checkpoints do.")
    ] = False,
) -> None:
    """Export a checkpoint for the published code.

    That of its algorithm, TD-MPC2 or TD-MPC.

    Example: tdmpc-ray export-official results/my-run walker.pt
    """
    from tdmpc_ray.studies.run.cluster import quiet

    quiet()
    from tdmpc_ray.rllib.published import export_official as convert

    convert(checkpoint, file, flat=flat)
    print(f"exported: {file}")


def export(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint, or the folder of a run: its newest one.")],
    file_format: Annotated[FileFormat, typer.Option("--format", help="What reads it.")] = FileFormat.torch,
    what: Annotated[
        Kind, typer.Option(help="The policy alone, or whole decisions by planning.")
    ] = Kind.policy,
    out: Annotated[Path | None, typer.Option(help="The file; policy.pt2 and so on by default.")] = None,
) -> None:
    """Export a trained agent as one file for PyTorch or ONNX.

    It acts without this package; docs/export.md has a control loop for it.

    Example: tdmpc-ray export results/my-run --format onnx --what planner
    """
    from tdmpc_ray.studies.run.cluster import quiet

    quiet()
    from tdmpc_ray.core.export import export as write
    from tdmpc_ray.core.export import make_program
    from tdmpc_ray.envs.spaces import meaning_of
    from tdmpc_ray.rllib.checkpoints.load import load_module

    file = out or Path(what + file_format.suffix)
    module = load_module(checkpoint)
    if isinstance(module.discount, list):
        raise UserError("a model of several tasks cannot be exported yet")
    program = make_program(module.agent, module.networks, module.cfg.planner, module.discount, what)
    metadata = {
        "task": module.model_config.get("task"),
        "action": meaning_of(module.action_space),
        "observation": meaning_of(module.observation_space),
    }
    write(program, file, file_format, metadata)
    print(f"exported: {file}, {file.stat().st_size / 2**20:.1f} MiB")
    for name, value in program.inputs.items():
        print(f"  input {name}: {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}")
    print(f"  output {', '.join(program.outputs)}")
