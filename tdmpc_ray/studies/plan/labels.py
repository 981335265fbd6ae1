"""What trials of a study are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tdmpc_ray.core.agents import DEFAULT_AGENT
from tdmpc_ray.studies.file.points import RESOURCES
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.plan.configure import ATTRIBUTES
from tdmpc_ray.studies.tracking.naming import short_task


def trial_params(config: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a trial from others, and what it was: MLflow's parameters."""
    obs, algorithm = config["env_config"].get("obs", "state"), config.get("agent_name", DEFAULT_AGENT)
    return {
        "task": config["env_config"]["task"],
        "model_size": str(config["model_size"]),
        **({"seed": config["seed"]} if "seed" in config else {}),
        **({"algorithm": algorithm} if algorithm != DEFAULT_AGENT else {}),
        **({"obs": obs} if obs != "state" else {}),
        "preset": config["preset"],
        **config["agent_overrides"],
        **{f"{RESOURCES}{key}": _whole(config[name]) for key, name in ATTRIBUTES.items() if name in config},
    }


def _whole(amount: Any) -> Any:
    """1.0 as 1, so that trials which begin after a resume are not taken for others: a file says either."""
    return int(amount) if isinstance(amount, float) and amount.is_integer() else amount


def label_params(config: Mapping[str, Any], study: Study) -> dict[str, Any]:
    """Of `trial_params` what is not the same in every trial, and the size and seed."""
    params = trial_params(config)
    params["task"] = short_task(params["task"])
    shown = {"model_size", "seed", *study.space, *(["task"] if len(study.task_names) > 1 else [])}
    if len(study.algorithms) > 1:
        params = {"algorithm": config["agent_name"], **params}
        shown.add("algorithm")
    return {key: value for key, value in params.items() if key in shown}


def steps(study: Study) -> str:
    """Of its trials: `6,000 agent steps`, `6,000 to 24,000 agent steps`, or `10,000 updates`."""
    least, most = min(map(study.steps_of, study.task_names)), study.most_steps
    number = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return f"{number} {'updates' if study.is_offline else 'agent steps'}"
