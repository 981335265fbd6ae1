"""Every task the package can build, by name. Nothing here starts or imports a simulator."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass

from tdmpc_ray.errors import UserError

DMCONTROL_STEPS = 500
METAWORLD_STEPS = 100
GYM_DEFAULT_STEPS = 1000
SIMULATOR_REPEAT = 2

# quadruped-escape is left out: the suite cannot even reset it without an OpenGL context.
_SUITE_TASKS: dict[str, str] = {
    "acrobot": "swingup swingup_sparse",
    "ball_in_cup": "catch",
    "cartpole": "balance balance_sparse swingup swingup_sparse two_poles three_poles",
    "cheetah": "run",
    "dog": "stand walk trot run fetch",
    "finger": "spin turn_easy turn_hard",
    "fish": "upright swim",
    "hopper": "stand hop",
    "humanoid": "stand walk run run_pure_state",
    "humanoid_CMU": "stand walk run",
    "lqr": "lqr_2_1 lqr_6_2",
    "manipulator": "bring_ball bring_peg insert_ball insert_peg",
    "pendulum": "swingup",
    "point_mass": "easy hard",
    "quadruped": "walk run fetch",
    "reacher": "easy hard",
    "stacker": "stack_2 stack_4",
    "swimmer": "swimmer6 swimmer15",
    "walker": "stand walk run",
}
# Those of `envs/custom`, in the same form.
_CUSTOM_TASKS: dict[str, str] = {
    "ball_in_cup": "spin",
    "cheetah": "run_backwards run_front run_back jump stand_front stand_back lie_down legs_up flip "
    "flip_backwards",
    "fish": "obstacles",
    "hopper": "hop_backwards flip flip_backwards",
    "pendulum": "spin",
    "reacher": "three_easy three_hard four_easy four_hard",
    "walker": "walk_backwards run_backwards arabesque lie_down legs_up headstand flip backflip",
}

# The short domain names of the TD-MPC2 task lists.
_DOMAIN_ALIASES = {"ball_in_cup": "cup", "point_mass": "pointmass"}

_METAWORLD_NAMES = (
    "assembly basketball bin-picking box-close button-press button-press-topdown "
    "button-press-topdown-wall button-press-wall coffee-button coffee-pull coffee-push dial-turn "
    "disassemble door-close door-lock door-open door-unlock drawer-close drawer-open faucet-close "
    "faucet-open hammer hand-insert handle-press handle-press-side handle-pull handle-pull-side "
    "lever-pull peg-insert-side peg-unplug-side pick-out-of-hole pick-place pick-place-wall plate-slide "
    "plate-slide-back plate-slide-back-side plate-slide-side push push-back push-wall reach reach-wall "
    "shelf-place soccer stick-pull stick-push sweep sweep-into window-close window-open"
)


@dataclass(frozen=True)
class TaskInfo:
    """What is known of a task before its simulator starts.

    Attributes:
        name: the name to pass to `make_env`, e.g. "walker-walk", "mw-reach", "gym:Pendulum-v1".
        suite: "dmcontrol", "metaworld" or "gymnasium".
        episode_length: time limit in agent steps.
        action_repeat: simulator control steps per agent step; env_frames = env_steps * action_repeat.
        metric: "return" or "success": the number that tells how well a policy does.
        simulator_id: the task's name inside its suite: "walker/walk", "reach-v3", "Pendulum-v1".
    """

    name: str
    suite: str
    episode_length: int
    action_repeat: int
    metric: str
    simulator_id: str

    @property
    def is_custom(self) -> bool:
        """Whether a DMControl task is one of `envs/custom`."""
        domain, _, task = self.simulator_id.partition("/")
        return self.suite == "dmcontrol" and task in _CUSTOM_TASKS.get(domain, "").split()

    @property
    def can_terminate(self) -> bool:
        """Whether an episode can end in a terminal state, before and apart from its time limit."""
        return self.suite == "gymnasium"


def _dmcontrol_entries() -> Iterator[tuple[str, TaskInfo]]:
    for table in (_SUITE_TASKS, _CUSTOM_TASKS):
        for domain, tasks in table.items():
            for task in tasks.split():
                short = _DOMAIN_ALIASES.get(domain, domain)
                name = f"{short}-{task}".replace("_", "-")
                info = TaskInfo(
                    name, "dmcontrol", DMCONTROL_STEPS, SIMULATOR_REPEAT, "return", f"{domain}/{task}"
                )
                yield f"{short}_{task}", info
                yield f"{domain}_{task}", info


# By the name with every '-' as '_', so that cup-catch, ball_in_cup-catch and ball-in-cup-catch are one task.
_DMCONTROL: dict[str, TaskInfo] = dict(_dmcontrol_entries())
_METAWORLD: dict[str, TaskInfo] = {
    f"mw-{task}": TaskInfo(
        f"mw-{task}", "metaworld", METAWORLD_STEPS, SIMULATOR_REPEAT, "success", f"{task}-v3"
    )
    for task in _METAWORLD_NAMES.split()
}


def list_tasks(suite: str | None = None) -> list[str]:
    """Return the sorted names of all DMControl and Meta-World tasks, or of one suite.

    Args:
        suite: "dmcontrol", "metaworld", "gymnasium" (every registered id, of any action space), or None.

    Raises:
        UserError: for another suite name.
    """
    names = {
        "dmcontrol": lambda: sorted({info.name for info in _DMCONTROL.values()}),
        "metaworld": lambda: sorted(_METAWORLD),
        "gymnasium": lambda: [f"gym:{key}" for key in sorted(_gym_registry())],
    }
    if suite is None:
        return names["dmcontrol"]() + names["metaworld"]()
    if suite not in names:
        raise UserError(f"unknown suite '{suite}': choose one of: {', '.join(names)}")
    return names[suite]()


def task_info(name: str) -> TaskInfo:
    """Look a task up by name.

    Args:
        name: "DOMAIN-TASK" (DMControl), "mw-NAME" (Meta-World), "gym:ID" or "gym:MODULE:ID" (Gymnasium, where
            importing MODULE registers ID).

    Raises:
        UserError: unknown name; the message names the nearest one.
    """
    if name.startswith("gym:"):
        return _gym_info(name)
    info = _METAWORLD.get(name) or _DMCONTROL.get(name.replace("-", "_"))
    if info is None:
        raise _unknown_task(name)
    return info


def _gym_registry() -> dict:
    import gymnasium

    return gymnasium.registry


def _gym_info(name: str) -> TaskInfo:
    module, _, gym_id = name.removeprefix("gym:").rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(
                f"task '{name}': cannot import module '{module}' ({error}): install it or fix its name"
            ) from error
    spec = _gym_registry().get(gym_id)
    if spec is None:
        raise _unknown_task(name)
    steps = spec.max_episode_steps or GYM_DEFAULT_STEPS
    return TaskInfo(name, "gymnasium", steps, 1, "return", gym_id)


def _unknown_task(name: str) -> UserError:
    known = list_tasks("gymnasium") if name.startswith("gym:") else list_tasks() + list_tasks("gymnasium")
    # Case is folded because Gymnasium's ids are capitalised and the other suites' names are not.
    folded = {choice.lower(): choice for choice in known}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    if close:
        return UserError(f"unknown task '{name}': did you mean '{folded[close[0]]}'?")
    return UserError(
        f"unknown task '{name}': use DOMAIN-TASK (walker-walk), mw-NAME (mw-reach), gym:ID (gym:Pendulum-v1)"
    )
