"""Commands about checkpoints of the published implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tdmpc_ray.cli.common import file_name
from tdmpc_ray.errors import UserError

IMPORTED = "imported"


def import_official(
    file: Annotated[Path, typer.Argument(metavar="FILE.pt", help="A checkpoint of the published code.")],
    task: Annotated[str, typer.Option(help="What it was trained on, such as walker-walk.")],
    out: Annotated[Path, typer.Option(help="Folder for it; new or empty.")],
    steps: Annotated[int, typer.Option(help="Agent steps that `train --resume` will train.")] = 1_000_000,
) -> None:
    """Import a checkpoint of the published TD-MPC2 code.

    Its folder can be evaluated, and trained on: with new optimizers and an empty replay, because the
    published code saves neither.

    Example: tdmpc-ray import-official walker.pt --task walker-walk --out results/published
    """
    from tdmpc_ray.studies.cluster import quiet

    quiet()
    from tdmpc_ray.envs import task_info
    from tdmpc_ray.rllib.exchange import import_official as convert
    from tdmpc_ray.studies.spec import make_study
    from tdmpc_ray.studies.study_folder import begin

    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty: choose another --out")
    name = task_info(task).name
    size, settings = convert(file, name, out / IMPORTED)
    study = make_study(
        {
            "name": file_name(f"{name}-published"),
            "task": name,
            "model_sizes": [size],
            "set": settings,
            "steps": steps,
            "start_from": str(out / IMPORTED),
        },
        {"steps": "--steps"},
    )
    begin(study, out, None)
    differing = f", with {settings}" if settings else ""
    print(f"imported: model size {size}{differing}")
    print(f"play it with: tdmpc-ray evaluate {out}")
    print(f"train it on with: tdmpc-ray train --resume {out}")


def export_official(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint, or the folder of a run: its newest one.")],
    file: Annotated[Path, typer.Argument(metavar="FILE.pt", help="The file to write.")],
    flat: Annotated[
        bool, typer.Option(help="Number the heads' parameters, as older checkpoints do.")
    ] = False,
) -> None:
    """Export a checkpoint for the published TD-MPC2 code.

    Example: tdmpc-ray export-official results/my-run walker.pt
    """
    from tdmpc_ray.studies.cluster import quiet

    quiet()
    from tdmpc_ray.rllib.exchange import export_official as convert

    convert(checkpoint, file, flat=flat)
    print(f"exported: {file}")
