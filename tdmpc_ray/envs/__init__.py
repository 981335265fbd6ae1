"""Tasks by name: `make_env("walker-walk")`. Every task has the same spaces, step and time limit semantics."""

from __future__ import annotations

import functools

import gymnasium

from tdmpc_ray.envs import registered
from tdmpc_ray.envs.catalog import list_tasks, register_task, task_info
from tdmpc_ray.envs.faults import FAULTS, MAX_CUT, GuardedEnv, too_many_cut
from tdmpc_ray.envs.gl import require_gl, without_gl
from tdmpc_ray.envs.spaces import Shapes
from tdmpc_ray.envs.task import TaskInfo
from tdmpc_ray.envs.wrappers import SimulatorEnv, check_seed
from tdmpc_ray.errors import UserError

__all__ = [
    "TaskInfo",
    "list_tasks",
    "make_env",
    "random_return",
    "register_task",
    "task_info",
    "task_shapes",
    "task_sizes",
]

OBSERVATIONS = ("state", "rgb")
CAMERAS = ("dmcontrol", "metaworld")  # suites whose cameras can be observed


def make_env(
    name: str, *, seed: int | None = None, render_mode: str | None = None, obs: str = "state"
) -> gymnasium.Env:
    """Build a task.

    Args:
        name: see `task_info`.
        seed: seeds the task and `action_space.sample()`; `reset(seed=...)` reseeds the task alone.
        obs: "state": what the task itself observes, byte images included; or "rgb": stacked camera frames
            (9, 64, 64) uint8, of DMControl's and Meta-World's tasks.
        render_mode: "rgb_array" makes `render()` return uint8 frames (H, W, 3).

    Returns:
        An environment with observations (O,) float32, stacked images (3 C, 64, 64) uint8, or a dict of such
        an `image` and a `vector`; actions (A,) float32 in [-1, 1], `truncated` at the time limit,
        `terminated` in terminal states of Gymnasium's and registered tasks alone, and `info["success"]` in
        Meta-World.

    Raises:
        UserError: unknown task, unsupported spaces, bad seed, or no way to render.
    """
    info = task_info(name)
    check_obs(info, obs)
    if info.tasks:
        from tdmpc_ray.envs.multitask import make_set

        if render_mode is not None:
            raise UserError(f"'{name}' is a set of tasks: render one of them")
        return make_set(info, check_seed(seed))
    seed = check_seed(seed)
    if render_mode not in (None, "rgb_array"):
        raise UserError(f"unknown render mode '{render_mode}': use 'rgb_array' or None")
    without_gl()
    if info.suite in ("gymnasium", "box2d"):
        from tdmpc_ray.envs.gym import make_gym

        return make_gym(info, seed, render_mode)
    if info.suite == "registered":
        from tdmpc_ray.envs.gym import make_registered

        task = registered.find(info.name)
        assert task is not None
        return make_registered(task, seed, render_mode)
    if info.suite == "maniskill":
        from tdmpc_ray.envs.maniskill import ManiSkillEnv

        return ManiSkillEnv(info, seed, render_mode)
    if render_mode is not None or obs == "rgb":
        # Before the simulators are imported, as they settle on an OpenGL library then.
        require_gl()
    env = _simulator_env(info, seed, render_mode)
    if obs == "state":
        return env
    from tdmpc_ray.envs.images import CameraEnv, FrameStack

    return FrameStack(CameraEnv(env))


def _simulator_env(info: TaskInfo, seed: int | None, render_mode: str | None) -> SimulatorEnv:
    if info.suite == "metaworld":
        from tdmpc_ray.envs.metaworld import MetaWorldEnv

        return MetaWorldEnv(info, seed, render_mode)
    if info.suite == "myosuite":
        from tdmpc_ray.envs.myosuite import MyoSuiteEnv

        return MyoSuiteEnv(info, seed, render_mode)
    from tdmpc_ray.envs.dmcontrol import DMControlEnv

    return DMControlEnv(info, seed, render_mode)


def check_obs(info: TaskInfo, obs: str) -> None:
    """Refuse observations that a task does not give.

    Raises:
        UserError: says which it gives.
    """
    if obs not in OBSERVATIONS:
        raise UserError(f"unknown observations '{obs}': use state or rgb")
    if obs == "rgb" and info.suite not in CAMERAS:
        raise UserError(
            f"task '{info.name}' has no camera to observe: rgb is for DMControl's and Meta-World's tasks; "
            "environments that observe byte images need no such option"
        )


def task_sizes(name: str) -> tuple[int, int]:
    """Lengths of a task's observation and action, of a task that observes a vector.

    Raises:
        UserError: as `make_env`; the task observes images.
    """
    shape, action_size, _ = task_shapes(name)
    if len(shape) > 1:
        raise UserError(f"task '{name}' observes images: in a set of tasks, all have to observe vectors")
    return shape[0], action_size


def task_shapes(name: str) -> Shapes:
    """What a task observes and how long its action is; it is built where no table holds that.

    Raises:
        UserError: as `make_env`.
    """
    info = task_info(name)
    if info.obs_size is not None and info.action_size is not None:
        return Shapes((info.obs_size,), info.action_size)
    return _built_shapes(info.name, registered.find(info.name))


@functools.cache
def _built_shapes(name: str, _: registered.RegisteredTask | None) -> Shapes:
    env = make_env(name)
    env.close()
    return Shapes.of(env.observation_space, env.action_space)


def random_return(name: str, episodes: int, seed: int, timeout_s: float | None = None) -> list[float]:
    """Return the undiscounted return of each of `episodes` episodes of a uniformly random policy.

    Of a set of tasks, the means over its tasks. An episode that a fault has cut is played again.

    Args:
        timeout_s: see `GuardedEnv`.

    Raises:
        UserError: as `make_env`, fewer than one episode, or faults cut one after the other.
    """
    if episodes < 1:
        raise UserError(f"episodes must be at least 1, not {episodes}")
    if tasks := task_info(name).tasks:
        columns = zip(*(random_return(task, episodes, seed, timeout_s) for task in tasks), strict=True)
        return [sum(column) / len(tasks) for column in columns]
    env = GuardedEnv(functools.partial(make_env, name, seed=seed), name, timeout_s, seed=seed)
    returns: list[float] = []
    cut_in_a_row = 0
    while len(returns) < episodes:
        env.reset()
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, info = env.step(env.action_space.sample())
            total += float(reward)
            over = terminated or truncated
        if FAULTS not in info:
            returns.append(total)
            cut_in_a_row = 0
            continue
        cut_in_a_row += 1
        if cut_in_a_row == MAX_CUT:
            raise too_many_cut(info[FAULTS][-1])
    env.close()
    return returns
