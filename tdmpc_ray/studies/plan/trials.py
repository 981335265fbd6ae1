"""A study, worked out once: its trials, what runs them, and what Ray reserves for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tdmpc_ray.datasets.sources import require_source
from tdmpc_ray.errors import UserError, reason
from tdmpc_ray.studies.file.points import Point
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.plan.configure import MakeEnvConfig, algorithm_config, at_point, env_configs
from tdmpc_ray.studies.plan.labels import label_params
from tdmpc_ray.studies.plan.room import Bundles
from tdmpc_ray.studies.tracking.naming import trial_label

if TYPE_CHECKING:
    from ray.tune import Trainable

    from tdmpc_ray.rllib.config import AgentAlgorithmConfig

_DRAWS_SEED = 0  # of what is drawn: the same for every task, size and seed, and in every run of the study


@dataclass(frozen=True)
class Trial:
    """One trial of a study, before it begins.

    Attributes:
        point: what it tries; what a search chooses later is not in its settings.
        config: its own entries of the algorithm's config, its seed among them.
        label: what tells it from the study's others.
    """

    point: Point
    config: dict[str, Any]
    label: str


@dataclass(frozen=True)
class Plan:
    """What a study stands for.

    Attributes:
        study: as its file says.
        trainable: runs the trials.
        fixed: what is the same in the configs of all trials.
        groups: for each of the study's points, what is the same in the configs of its trials.
        trials: all of them, those with the first seed first.
        requests: the bundles that Ray reserves for a trial; one entry for all that ask for the same.
    """

    study: Study
    trainable: type[Trainable]
    fixed: dict[str, Any]
    groups: list[dict[str, Any]]
    trials: list[Trial]
    requests: list[Bundles]


def plan_study(study: Study, trainable: type[Trainable] | None = None) -> Plan:
    """Work a study out, and check every trial that may fail on its own.

    Args:
        study: its file.
        trainable: instead of the algorithm.

    Raises:
        UserError: a trial is refused.
    """
    if trainable is None:
        from tdmpc_ray.rllib.algorithm import AgentAlgorithm

        config = algorithm_config(study)
        kind: type[Trainable] = AgentAlgorithm if len(study.algorithms) > 1 else config.algorithm_class
        # Without an environment, which each trial brings: Tune would look for placeholders of its objects.
        fixed, env_config = {**config.to_dict(), "env_config": {}}, env_configs(study)
    else:
        kind, fixed, env_config = trainable, {"preset": study.preset}, _task_alone
    trials = _trials(study, env_config)
    distinct = _distinct(study, trials)
    if trainable is None:
        _check(study, distinct)
    requests: list[Bundles] = []
    for point in distinct:
        request = kind.default_resource_request({**fixed, **at_point(point, env_config)})
        bundles = list(request.bundles) if request else [{"CPU": 1.0}]
        if bundles not in requests:
            requests.append(bundles)
    groups = [at_point(point, env_config) for point in study.points()]
    return Plan(study, kind, fixed, groups, trials, requests)


def point_label(study: Study, point: Point) -> str:
    """What tells the trials of a point from others; what is drawn is shown as where it is drawn from."""
    return _label(study, at_point(point, _task_alone), study.draws())


def _label(study: Study, config: dict[str, Any], unknown: Iterable[str]) -> str:
    later = {}
    for key in unknown:
        [(kind, values)] = study.space[key].model_dump(exclude_none=True).items()
        later[key] = f"{kind}{list(values)}"
    return trial_label({**label_params({"preset": study.preset, **config}, study), **later})


def _task_alone(task: str) -> dict[str, Any]:
    return {"task": task}


def _trials(study: Study, env_config: MakeEnvConfig) -> list[Trial]:
    suggested = study.draws() if study.search.is_model_based else ()
    found = []
    samples = [
        replace(point, settings={**point.settings, **drawn})
        for drawn in _drawn(study)
        for point in study.points()
    ]
    for seed in study.seeds:
        for point in samples:
            config = {**at_point(point, env_config), "seed": seed}
            found.append(Trial(point, config, _label(study, config, suggested)))
    return found


def _drawn(study: Study) -> list[dict[str, Any]]:
    """The settings of each sample that are drawn at random; a longer study begins with the same ones."""
    domains = {} if study.search.is_model_based else study.draws()
    # Of each setting its own stream: their order in the file means nothing.
    streams = {key: np.random.default_rng([_DRAWS_SEED, *key.encode()]) for key in domains}
    return [
        {key: domain.sample(random_state=streams[key]) for key, domain in domains.items()}
        for _ in range(study.num_samples)
    ]


def _distinct(study: Study, trials: list[Trial]) -> list[Point]:
    """One point of all that are checked, and reserved for, alike; of what is chosen later, its bounds.

    They differ in settings of an update or a planner that were checked with the file, such as learning rates.
    """
    points = {id(trial.point): trial.point for trial in trials}.values()
    later = study.drawn_points(_matters)
    found: dict[object, Point] = {}
    for point in (*points, *later):
        agent = study.agent_config(point.model_size, point.settings, point.algorithm)
        parts = (agent.algorithm, agent.model, agent.data, agent.planner.horizon, agent.update.batch_size)
        found.setdefault((point.task, point.steps, point.resources, parts), point)
    return list(found.values())


def _matters(key: str) -> bool:
    """Whether trials that differ in this setting may be refused, or need other resources, one by one."""
    return key.startswith(("model.", "data.")) or key in ("planner.horizon", "update.batch_size")


def _check(study: Study, points: list[Point]) -> None:
    """Refuse what RLlib would, demonstrations that are missing, and networks of `start_from` that do not fit.

    Raises:
        UserError: says which.
    """
    configs = [algorithm_config(study, point) for point in points]
    try:
        for config in configs:
            config.validate()
    except ValueError as error:
        raise UserError(f"RLlib refuses this study: {reason(error)}") from None
    for where in {config.agent().data.demonstrations for config in configs} - {""}:
        try:
            require_source(where)
        except UserError as error:
            raise UserError(f"data.demonstrations: {error}") from None
    if study.start_from is not None:
        _check_start(study.start_from, configs)
    for config in {(config.task, config.agent().teacher): config for config in configs}.values():
        _check_teacher(config)


def _check_teacher(config: AgentAlgorithmConfig) -> None:
    if not config.agent().teacher:
        return
    from tdmpc_ray.rllib.learning.teacher import read_teacher

    read_teacher(config)


def _check_start(start_from: str, configs: list[AgentAlgorithmConfig]) -> None:
    from tdmpc_ray.rllib.learning.start_networks import check_networks, read_networks

    check_networks(read_networks(start_from), configs)
