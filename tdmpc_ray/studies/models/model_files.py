"""The files of an MLflow model, written from a checkpoint."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tdmpc_ray.core.saved_agent import AgentDescription

CODE_FILE = Path(__file__).with_name("pyfunc_model.py")
_LINKED = ("tdmpc-ray", "torch", "numpy", "mlflow")


def write_slim(checkpoint: Path, folder: Path) -> AgentDescription:
    """Write a checkpoint's agent into a folder, as `core.saved_agent` reads it.

    Raises:
        UserError: no checkpoint, or a damaged one.
    """
    from tdmpc_ray.core.checks import refuse_two_parts
    from tdmpc_ray.core.saved_agent import AgentDescription, write_agent
    from tdmpc_ray.envs import task_info, task_sizes
    from tdmpc_ray.rllib.checkpoints.load import load_module

    module = load_module(checkpoint)
    model, config = module.networks, module.model_config
    refuse_two_parts(model, "registered or served")
    task = config["task"]
    tasks = task_info(task).tasks if task is not None else ()
    description = AgentDescription(
        settings=module.cfg.to_dict(),
        obs_shape=model.obs_shape,
        action_dim=model.action_dim,
        discount=module.discount,
        task=task,
        tasks=tuple(tasks),
        obs_dims=tuple(task_sizes(name)[0] for name in tasks),
        action_dims=tuple(config.get("action_dims") or ()),
        versions={name: importlib.metadata.version(name) for name in ("tdmpc-ray", "torch")},
    )
    write_agent(folder, description, model)
    return description


def write_model(checkpoint: Path, path: Path, **identity: Any) -> None:
    """Write a checkpoint as an MLflow model into a new folder.

    Args:
        checkpoint: of RLlib.
        path: the new folder.
        identity: `run_id` and `model_id` of what it is logged as.
    """
    import mlflow
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as temporary, silent():
        agent = Path(temporary) / "agent"
        description = write_slim(checkpoint, agent)
        mlflow.pyfunc.save_model(
            path=str(path),
            python_model=str(CODE_FILE),
            artifacts={"agent": str(agent)},
            signature=_signature(description),
            input_example=_example(description),
            pip_requirements=_requirements(),
            model_config={"device": "auto"},
            mlflow_model=Model(**identity),
        )


@contextmanager
def silent() -> Iterator[None]:
    """Without MLflow's remarks and progress bars."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _signature(description: AgentDescription) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    # The tasks of a set differ in their sizes.
    shape = (-1,) if description.tasks else description.obs_shape
    actions = -1 if description.tasks else description.action_dim
    obs_type = np.dtype("uint8" if description.is_images else "float32")
    params = [
        ParamSpec("task", "string", ""),
        ParamSpec("method", "string", "plan"),
        ParamSpec("seed", "long", 0),
        ParamSpec("prev_mean", "double", [], shape=(-1,)),
        ParamSpec("with_plan", "boolean", False),
    ]
    return ModelSignature(
        inputs=Schema([TensorSpec(obs_type, (-1, *shape))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, actions))]),
        params=ParamSchema(params),
    )


def _example(description: AgentDescription) -> Any:
    import numpy as np

    obs_shape, _ = description.shapes(0 if description.tasks else None)
    obs = np.zeros((1, *obs_shape), "uint8" if description.is_images else "float32")
    return (obs, {"task": description.tasks[0]}) if description.tasks else obs


def _requirements() -> list[str]:
    """What has to be installed; which build of PyTorch (CPU, CUDA) is for whoever installs it to say."""
    versions = {name: importlib.metadata.version(name).partition("+")[0] for name in _LINKED}
    return [f"{name}=={version}" for name, version in versions.items()]
