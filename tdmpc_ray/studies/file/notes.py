"""What a user might not expect of a study, said before it begins."""

from __future__ import annotations

from itertools import product

from tdmpc_ray.core.agents import find_settings
from tdmpc_ray.envs import task_info
from tdmpc_ray.studies.file.points import Point
from tdmpc_ray.studies.file.spec import Study

_NOTHING = "nothing will be learned"


def notes(study: Study) -> list[str]:
    """A line each."""
    said: dict[str, str] = {}
    for point in [] if study.is_offline else study.points():
        who = f" of {point.algorithm}" if len(study.algorithms) > 1 else ""
        line = _random_steps(study, point, who)
        if line.startswith(_NOTHING):
            said[f"random{who}"] = line
        elif line:
            said.setdefault(f"random{who}", line)
    for task, name in product(study.task_names, study.algorithms):
        if line := _repeat(task, name):
            said[f"{task} {name}"] = line
    episodic = "model.episodic" in {**study.overrides, **study.space}
    for name in study.task_names:
        for task in task_info(name).tasks or (name,):
            if not episodic and task_info(task).can_terminate:
                said[task] = (
                    f"{task} may terminate: the model learns to foresee it; where it never does, set "
                    "model.episodic to false"
                )
    return list(said.values())


def _random_steps(study: Study, point: Point, who: str) -> str:
    """Where they are many; empty: they are few."""
    first = study.random_steps(point)
    cloning = study.agent_config(point.model_size, point.settings, point.algorithm).data.cloning
    acts = "the clone's" if cloning else "random"
    if point.steps <= first:
        return (
            f"{_NOTHING}, as updates{who} begin after {first:,} steps: take more steps, or set "
            "data.seed_steps"
        )
    if first > point.steps / 4:
        return (
            f"the first {first:,} of {point.steps:,} steps{who} are {acts} (data.seed_steps); then as many "
            "updates catch up with them"
        )
    return ""


def _repeat(task: str, algorithm: str) -> str:
    """Where actions last longer in the algorithm's published runs: these are runs on another task."""
    info = task_info(task)
    published = find_settings(algorithm).published_repeat(info.suite, info.name)
    if published is None or published == info.action_repeat or "@" in info.name:
        return ""
    return (
        f"{algorithm} was published with actions of {published} simulator steps on {info.name}, here they "
        f"have {info.action_repeat}: that is task {info.name}@{published}"
    )
