"""What a study says, in RLlib's terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tdmpc_ray.studies.file.points import Point
from tdmpc_ray.studies.file.sections import Resources
from tdmpc_ray.studies.file.spec import Study

if TYPE_CHECKING:
    from tdmpc_ray.rllib.config import AgentAlgorithmConfig

# A trial's resources as attributes of the algorithm's config.
ATTRIBUTES = {
    "num_env_runners": "num_env_runners",
    "num_envs_per_env_runner": "num_envs_per_env_runner",
    "rollout_fragment_length": "rollout_fragment_length",
    "asynchronous": "asynchronous",
    "cpus_per_env_runner": "num_cpus_per_env_runner",
    "gpus_per_env_runner": "num_gpus_per_env_runner",
    "cpus_for_main_process": "num_cpus_for_main_process",
    "num_learners": "num_learners",
    "gpus_per_learner": "num_gpus_per_learner",
}

MakeEnvConfig = Callable[[str], dict[str, Any]]  # of a task


def algorithm_config(study: Study, point: Point | None = None) -> AgentAlgorithmConfig:
    """The algorithm's config at a point, with the first seed; None: the first point."""
    from tdmpc_ray.rllib import new_config

    point = point or study.points()[0]
    config = new_config(point.algorithm).environment(point.task, obs=study.obs)
    config.training(
        model_size=point.model_size,
        preset=study.preset,
        overrides=point.settings,
        eval_every=study.evaluation.every,
        total_steps=point.steps,
        start_from=study.start_from,
        embed_as=study.embed_as,
        videos=study.evaluation.videos,
        system_metrics=study.tracking.system_metrics,
    )
    config.update_from_dict(attributes(point.resources))
    config.fault_tolerance(
        max_env_faults=study.max_env_faults,
        env_step_timeout_s=study.env_step_timeout_s,
        learner_timeout_s=study.learner_timeout_s,
    )
    config.evaluation(
        evaluation_duration=study.evaluation.episodes, evaluation_num_env_runners=study.evaluation.runners
    )
    config.debugging(seed=study.seeds[0])
    return config


def attributes(resources: Resources) -> dict[str, Any]:
    """Resources in RLlib's terms; what is none is the config's to say."""
    values = {name: getattr(resources, key) for key, name in ATTRIBUTES.items()}
    return {name: value for name, value in values.items() if value is not None}


def env_configs(study: Study) -> MakeEnvConfig:
    """What environments of the study's tasks are built from."""
    from tdmpc_ray.rllib import new_config

    configs = {task: new_config().environment(task, obs=study.obs) for task in study.task_names}
    return {task: dict(config.env_config) for task, config in configs.items()}.__getitem__


def at_point(point: Point, env_config: MakeEnvConfig) -> dict[str, Any]:
    """What a point says of a trial, as entries of its config."""
    return {
        "agent_name": point.algorithm,
        "model_size": point.model_size,
        "agent_overrides": point.settings,
        "env_config": env_config(point.task),
        "total_steps": point.steps,
        **attributes(point.resources),
    }
