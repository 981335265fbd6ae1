"""Every task the package can build, by name. Nothing here starts or imports a simulator."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tdmpc_ray.envs import registered
from tdmpc_ray.envs.tables import (
    BOX2D_TASKS,
    CUSTOM_TASKS,
    MANISKILL_TASKS,
    METAWORLD_SIZES,
    METAWORLD_TASKS,
    MYOSUITE_ACTION_SIZE,
    MYOSUITE_TASKS,
    SUITE_TASKS,
    TASK_SETS,
)
from tdmpc_ray.envs.task import SPARSE, TaskInfo
from tdmpc_ray.errors import UserError, reason

if TYPE_CHECKING:
    import gymnasium

DMCONTROL_STEPS = 500
METAWORLD_STEPS = 100
MANISKILL_STEPS = 100
MYOSUITE_STEPS = 100
GYM_DEFAULT_STEPS = 1000
SIMULATOR_REPEAT = 2
_REPEATING = ("dmcontrol", "metaworld")  # suites whose tasks may have another one

# The short domain names of the TD-MPC2 task lists.
_DOMAIN_ALIASES = {"ball_in_cup": "cup", "point_mass": "pointmass"}


def _dmcontrol_entries() -> Iterator[tuple[str, TaskInfo]]:
    for table in (SUITE_TASKS, CUSTOM_TASKS):
        for domain, obs_size, action_size, tasks in table:
            for task in tasks.split():
                short = _DOMAIN_ALIASES.get(domain, domain)
                info = TaskInfo(
                    name=f"{short}-{task}".replace("_", "-"),
                    suite="dmcontrol",
                    episode_length=DMCONTROL_STEPS,
                    action_repeat=SIMULATOR_REPEAT,
                    metric="return",
                    simulator_id=f"{domain}/{task}",
                    obs_size=obs_size,
                    action_size=action_size,
                    is_custom=table is CUSTOM_TASKS,
                )
                yield f"{short}_{task}", info
                yield f"{domain}_{task}", info


# By the name with every '-' as '_', so that cup-catch, ball_in_cup-catch and ball-in-cup-catch are one task.
_DMCONTROL: dict[str, TaskInfo] = dict(_dmcontrol_entries())
_METAWORLD: dict[str, TaskInfo] = {
    f"mw-{task}": TaskInfo(
        f"mw-{task}",
        "metaworld",
        METAWORLD_STEPS,
        SIMULATOR_REPEAT,
        "success",
        f"{task}-v3",
        *METAWORLD_SIZES,
    )
    for task in METAWORLD_TASKS.split()
}
_MYOSUITE: dict[str, TaskInfo] = {
    f"myo-hand-{task}{ending}": TaskInfo(
        f"myo-hand-{task}{ending}",
        "myosuite",
        MYOSUITE_STEPS,
        1,
        "success",
        f"myoHand{name}{kind}-v0",
        obs_size,
        MYOSUITE_ACTION_SIZE,
    )
    for task, name, obs_size in MYOSUITE_TASKS
    for ending, kind in (("", "Fixed"), ("-hard", "Random"))
}

_MANISKILL: dict[str, TaskInfo] = {
    name: TaskInfo(name, "maniskill", MANISKILL_STEPS, SIMULATOR_REPEAT, "success", simulator_id, obs, act)
    for name, simulator_id, obs, act in MANISKILL_TASKS
}
_BOX2D: dict[str, TaskInfo] = {
    name: TaskInfo(name, "box2d", steps, 1, "return", simulator_id, obs, act, can_terminate=True)
    for name, simulator_id, steps, obs, act in BOX2D_TASKS
}


def list_tasks(suite: str | None = None) -> list[str]:
    """Return the sorted names of all tasks but Gymnasium's, or of one suite.

    Args:
        suite: "dmcontrol", "metaworld", "maniskill", "myosuite", "box2d", "registered" (see
            `register_task`), "gymnasium" (every id, of any action space), or None.

    Raises:
        UserError: for another suite name.
    """
    names = {
        "dmcontrol": lambda: sorted({info.name for info in _DMCONTROL.values()}),
        "metaworld": lambda: sorted(_METAWORLD),
        "maniskill": lambda: sorted(_MANISKILL),
        "myosuite": lambda: sorted(_MYOSUITE),
        "box2d": lambda: sorted(_BOX2D),
        "registered": registered.names,
        "gymnasium": lambda: [f"gym:{key}" for key in sorted(_gym_registry())],
    }
    if suite is None:
        return [name for group in names if group != "gymnasium" for name in names[group]()]
    if suite not in names:
        raise UserError(f"unknown suite '{suite}': choose one of: {', '.join(names)}")
    return names[suite]()


def task_info(name: str) -> TaskInfo:
    """Look a task up by name.

    Args:
        name: "DOMAIN-TASK" (DMControl), "mw-NAME" (Meta-World), "pick-cube", ... (ManiSkill), "myo-NAME"
            (MyoSuite), "bipedal-walker", ... (Box2D), "gym:ID" or "gym:MODULE:ID" (Gymnasium, where
            importing MODULE registers ID), or that of a registered task; "TASK@4" (DMControl, Meta-World) has
            actions of 4 simulator steps, "TASK@sparse" (Meta-World) rewards of success - 1; for several tasks
            that one model learns "mt30", "mt80" or "TASK+TASK+...".

    Raises:
        UserError: unknown name; the message names the nearest one.
    """
    if name in TASK_SETS or "+" in name:
        return _set_info(name)
    if name.startswith("gym:"):
        return _gym_info(name)
    if info := _built_in(name) or _with_options(name):
        return info
    if found := registered.find(name):
        return found.info
    raise _unknown_task(name)


def _set_info(name: str) -> TaskInfo:
    members = [
        task_info(member)
        for part in (name.split("+") if name not in TASK_SETS else [name])
        for member in TASK_SETS.get(part, [part])
    ]
    names = tuple(info.name for info in members)
    if repeated := [task for task in names if names.count(task) > 1]:
        raise UserError(f"task '{repeated[0]}' is twice in '{name}': name each task once")
    sizes = [(info.obs_size, info.action_size) for info in members]
    obs_sizes, action_sizes = ([s for s in column if s is not None] for column in zip(*sizes, strict=True))
    is_known = len(obs_sizes) == len(action_sizes) == len(members)
    return TaskInfo(
        name=name if name in TASK_SETS else "+".join(names),
        suite="multitask",
        episode_length=max(info.episode_length for info in members),
        action_repeat=max(info.action_repeat for info in members),
        metric=common_metric(members),
        simulator_id="",
        obs_size=max(obs_sizes) if is_known else None,
        action_size=max(action_sizes) if is_known else None,
        tasks=names,
        can_terminate=any(info.can_terminate for info in members),
    )


def common_metric(infos: Sequence[TaskInfo]) -> str:
    """What several tasks are judged by: the score, where returns and success have to be put together."""
    metrics = {info.metric for info in infos}
    if len(metrics) == 1:
        return metrics.pop()
    members = [task_info(name) for info in infos for name in info.tasks or (info.name,)]
    has_score = all(info.metric == "success" or info.suite == "dmcontrol" for info in members)
    return "score" if has_score else "return"


def _built_in(name: str) -> TaskInfo | None:
    for suite in (_METAWORLD, _MANISKILL, _MYOSUITE, _BOX2D):
        if name in suite:
            return suite[name]
    return _DMCONTROL.get(name.replace("-", "_"))


def register_task(
    name: str,
    make: Callable[..., gymnasium.Env],
    *,
    episode_length: int,
    action_repeat: int = 1,
    metric: str = "return",
    can_terminate: bool = False,
) -> None:
    """Make a task known by name, in the place of an earlier one of that name.

    Args:
        name: to use wherever a task is named.
        make: builds the environment: `make()`, or `make(render_mode="rgb_array")` for films; a class serves.
            What it may observe and do: `adapter.adapt`, docs/environments.md.
        episode_length: no episode lasts longer, in agent steps; the environment ends it by itself.
        action_repeat: simulator steps per agent step, for counting frames.
        metric: "return", or "success": 0 or 1 in `info["success"]` of an episode's last step.
        can_terminate: whether the environment has terminal states; the episodic model learns them.

    Raises:
        UserError: the name is a task of the package, or a number is none.
    """
    is_name = isinstance(name, str) and name.strip() and not set(":+") & set(name)
    if not is_name or _built_in(name) or name in TASK_SETS:
        raise UserError(
            f"cannot register a task as {name!r}: choose a name that no task has, without ':' and '+'"
        )
    for what, number in (("episode_length", episode_length), ("action_repeat", action_repeat)):
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise UserError(f"task '{name}': {what} must be a positive whole number, not {number!r}")
    if metric not in ("return", "success"):
        raise UserError(f"task '{name}': metric must be 'return' or 'success', not {metric!r}")
    info = TaskInfo(
        name, "registered", episode_length, action_repeat, metric, name, can_terminate=can_terminate
    )
    registered.remember(registered.RegisteredTask(info, make))


def _gym_registry() -> dict:
    import gymnasium

    return gymnasium.registry


def _with_options(name: str) -> TaskInfo | None:
    """A task with what stands behind its name: `@4`, `@sparse`, or both."""
    base, *options = name.split("@")
    info = _built_in(base)
    if info is None or not options:
        return None
    if SPARSE in options:
        options.remove(SPARSE)
        if info.suite != "metaworld":
            raise UserError(f"task '{name}': only Meta-World's can have sparse rewards")
        info = replace(info, reward=SPARSE)
    if len(options) > 1:
        raise UserError(f"task '{name}': behind '@' stands an action repeat, or sparse: each once")
    info = _with_repeat(name, info, options[0]) if options else info
    return replace(info, name=f"{info.name}@{SPARSE}") if info.reward == SPARSE else info


def _with_repeat(name: str, info: TaskInfo, repeat: str) -> TaskInfo:
    """A task whose actions last for another number of simulator steps; its episodes last as long."""
    if info.suite not in _REPEATING:
        raise UserError(f"task '{name}': only DMControl's and Meta-World's can have another action repeat")
    steps = info.episode_length * info.action_repeat
    if not (repeat.isascii() and repeat.isdigit()) or not int(repeat) or steps % int(repeat):
        raise UserError(
            f"task '{name}': behind '@' stands a divisor of {steps}, the simulator's steps per episode"
        )
    if int(repeat) == info.action_repeat:
        return info
    number = int(repeat)
    return replace(info, name=f"{info.name}@{number}", action_repeat=number, episode_length=steps // number)


def _gym_info(name: str) -> TaskInfo:
    module, _, gym_id = name.removeprefix("gym:").rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except Exception as error:  # of foreign code, anything may come
            raise UserError(
                f"task '{name}': cannot import module '{module}' ({reason(error)}): install it, or mend it "
                "or its name"
            ) from error
    spec = _gym_registry().get(gym_id)
    if spec is None:
        raise _unknown_task(name)
    steps = spec.max_episode_steps or GYM_DEFAULT_STEPS
    return TaskInfo(name, "gymnasium", steps, 1, "return", gym_id, can_terminate=True)


def _unknown_task(name: str) -> UserError:
    known = list_tasks("gymnasium") if name.startswith("gym:") else list_tasks() + list_tasks("gymnasium")
    # Case is folded because Gymnasium's ids are capitalised and the other suites' names are not.
    folded = {choice.lower(): choice for choice in known}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    if close:
        return UserError(f"unknown task '{name}': did you mean '{folded[close[0]]}'?")
    return UserError(
        f"unknown task '{name}': use DOMAIN-TASK (walker-walk), mw-NAME (mw-reach), gym:ID "
        "(gym:Pendulum-v1), a registered name, or several with '+'"
    )
