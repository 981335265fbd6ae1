"""A study's trials in RLlib's and Tune's terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdmpc_ray.core.replay.demonstrations import episode_files
from tdmpc_ray.errors import UserError, reason
from tdmpc_ray.studies.file.points import RESOURCES, Point
from tdmpc_ray.studies.file.sections import Resources
from tdmpc_ray.studies.file.spec import Study

if TYPE_CHECKING:
    from ray.tune import Trainable

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
    config = new_config(study.algorithm).environment(point.task, obs=study.obs)
    config.training(
        model_size=point.model_size,
        preset=study.preset,
        overrides=point.settings,
        eval_every=study.evaluation.every,
        total_steps=point.steps,
        start_from=study.start_from,
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


def checked_configs(study: Study) -> list[AgentAlgorithmConfig]:
    """The algorithm's configs of the points that differ in more than numbers, see `distinct_points`.

    Raises:
        UserError: one is refused, demonstrations are missing, or the networks of `start_from` do not fit.
        ValueError: RLlib's own refusal.
    """
    configs = [algorithm_config(study, point) for point in distinct_points(study)]
    for config in configs:
        config.validate()
    for folder in {config.agent().data.demonstrations for config in configs} - {""}:
        episode_files(Path(folder))
    if study.start_from is not None:
        from tdmpc_ray.rllib.learning.start_networks import check_networks, read_networks

        check_networks(read_networks(study.start_from), configs)
    return configs


def distinct_points(study: Study) -> list[Point]:
    """One point of all that are checked, and reserved for, alike; those of what is drawn among them.

    They differ in settings of an update or a planner that were checked with the file, such as learning rates.
    """
    found: dict[object, Point] = {}
    for point in (*study.points(), *study.drawn_points(_matters)):
        agent = study.agent_config(point.model_size, point.settings)
        parts = (agent.model, agent.data, agent.planner.horizon, agent.update.batch_size)
        found.setdefault((point.task, point.steps, point.resources, parts), point)
    return list(found.values())


def _matters(key: str) -> bool:
    """Whether trials that differ in this setting may be refused, or need other resources, one by one."""
    return key.startswith(("model.", "data.")) or key in ("planner.horizon", "update.batch_size")


def attributes(resources: Resources) -> dict[str, Any]:
    """Resources in RLlib's terms; what is none is the config's to say."""
    values = {name: getattr(resources, key) for key, name in ATTRIBUTES.items()}
    return {name: value for name, value in values.items() if value is not None}


def env_configs(study: Study) -> MakeEnvConfig:
    """What environments of a task are built from."""
    from tdmpc_ray.rllib import new_config

    return lambda task: dict(new_config().environment(task, obs=study.obs).env_config)


def at_point(point: Point, env_config: MakeEnvConfig) -> dict[str, Any]:
    """What a point says of a trial, as entries of its config."""
    return {
        "model_size": point.model_size,
        "agent_overrides": point.settings,
        "env_config": env_config(point.task),
        "total_steps": point.steps,
        **attributes(point.resources),
    }


def trainable_and_fixed(
    study: Study, trainable: type[Trainable] | None = None
) -> tuple[type[Trainable], dict[str, Any], MakeEnvConfig]:
    """What runs the trials, what is the same in all of their configs, and what their environments need.

    Raises:
        UserError: a trial is refused.
    """
    if trainable is not None:
        return trainable, {"preset": study.preset}, lambda task: {"task": task}
    try:
        checked_configs(study)
    except ValueError as error:
        raise UserError(f"RLlib refuses this study: {reason(error)}") from None
    config = algorithm_config(study)
    return config.algorithm_class, config.to_dict(), env_configs(study)


def trial_requests(
    study: Study, trainable: type[Trainable], fixed: Mapping[str, Any], env_config: MakeEnvConfig
) -> list[list[dict[str, float]]]:
    """The bundles that Ray reserves for a study's trials: one list for all that ask for the same.

    Args:
        study: its points.
        trainable: what runs the trials.
        fixed: entries of the trials' configs that none of them changes.
        env_config: a task to what its environments are built from.
    """
    found: list[list[dict[str, float]]] = []
    for point in distinct_points(study):
        request = trainable.default_resource_request({**fixed, **at_point(point, env_config)})
        bundles = list(request.bundles) if request else [{"CPU": 1.0}]
        if bundles not in found:
            found.append(bundles)
    return found


def search_space(study: Study, env_config: MakeEnvConfig) -> dict[str, Any]:
    """What differs between trials, and the fixed settings, in Tune's terms.

    With a model-based search, which chooses them itself, the first of each.
    """
    from ray import tune

    if study.search.is_model_based:
        return {**at_point(study.points()[0], env_config), "seed": study.seeds[0]}

    def over(values: list[Any]) -> Any:
        return tune.grid_search(values) if len(values) > 1 else values[0]

    grids = {key: tune.grid_search(values) for key, values in study.grids().items()}
    settings = {key: grid for key, grid in grids.items() if not key.startswith(RESOURCES)}
    resources = {ATTRIBUTES[k.removeprefix(RESOURCES)]: g for k, g in grids.items() if k not in settings}
    steps = {task: study.steps_of(task) for task in study.task_names}
    return {
        "model_size": over(study.model_sizes),
        "seed": over(study.seeds),
        "agent_overrides": {**study.settings(), **settings, **study.draws()},
        "env_config": over([env_config(task) for task in study.task_names]),
        "total_steps": tune.sample_from(_StepsOf(steps)) if len(steps) > 1 else study.most_steps,
        **attributes(study.resources),
        **resources,
    }


class _StepsOf:
    """A trial's steps by its task; a class, because Tune pickles it."""

    def __init__(self, steps: dict[str, int]) -> None:
        self._steps = steps

    def __call__(self, config: Any) -> int:
        return self._steps[config["env_config"]["task"]]
