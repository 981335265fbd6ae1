"""The one way in for environments that are not the package's own.

`gym:ID`, registered tasks, and whatever is handed to `TDMPC2Config().environment(...)` are checked and
adapted here: actions in [-1, 1], observations as float32 vectors, stacked byte images, or both.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Space
from numpy.typing import ArrayLike

from tdmpc_ray.envs.contract import Contract, named
from tdmpc_ray.envs.images import STACK_SHAPES, FrameStack, is_stacked
from tdmpc_ray.envs.layout import Layout, UnsupportedSpacesError, describe, read_layout
from tdmpc_ray.envs.spaces import UNBOUNDED, ActionScale, action_box
from tdmpc_ray.errors import UserError, described, reason

_UNPACKING = "not enough values to unpack (expected 5, got 4)"
_OLD_GYM = "it follows the interface of old Gym: let it follow Gymnasium's"


def adapt(
    env: Any,
    task: str,
    *,
    seed: int | None = None,
    limit: int | None = None,
    cut: bool = False,
    metric: str = "return",
) -> gymnasium.Env:
    """Check an environment and adapt it; one that is refused is closed.

    Args:
        env: any `gymnasium.Env`.
        task: its name, for errors.
        seed: of the first episode, where its reset gives none, and of `action_space.sample()`.
        limit: steps that an episode may last.
        cut: whether an episode is truncated there; otherwise one that goes on is a fault.
        metric: "success" where the last step has to say it.

    Returns:
        An environment with actions (A,) in [-1, 1], and observations (O,) float32, (3 C, 64, 64) uint8, or a
        dict of such an `image` and a `vector`.

    Raises:
        UserError: it is no environment of Gymnasium, or nothing here handles its spaces.
    """
    if not isinstance(env, gymnasium.Env):
        raise UserError(f"task '{task}' cannot be built: {type(env).__name__} is no gymnasium.Env")
    try:
        adapted = AdaptedEnv(env, task, seed, limit, cut, metric)
    except UserError:
        env.close()
        raise
    return adapted if is_stacked(adapted.observation_space) else FrameStack(adapted)


def check_spaces(task: str, actions: Space, observations: Space) -> tuple[Box, Layout]:
    """Refuse spaces that nothing here handles.

    Returns:
        The actions' space, and how observations are read.

    Raises:
        UnsupportedSpacesError: says which space is wrong, and what to do.
    """
    is_vector = isinstance(actions, Box) and len(actions.shape) == 1 and actions.shape[0] > 0
    if not is_vector or not np.issubdtype(actions.dtype, np.floating):
        raise UnsupportedSpacesError(
            f"task '{task}' has actions {describe(actions)}: choose one with a vector of continuous actions "
            "(docs/not_offered.md)"
        )
    assert isinstance(actions, Box)
    bounds = np.stack([actions.low, actions.high])
    if not (np.abs(bounds) < UNBOUNDED).all():
        index = int(np.argmin((np.abs(bounds) < UNBOUNDED).all(0)))
        low, high = bounds[:, index]
        raise UnsupportedSpacesError(
            f"task '{task}' has unbounded actions, number {index} from {low:g} to {high:g}: give both "
            f"bounds, less than {UNBOUNDED:g}, as larger ones overflow"
        )
    return actions, read_layout(task, observations)


def check_ready(task: str, actions: Space, observations: Space) -> None:
    """Refuse spaces of an environment that nothing adapts, as one object is all environments of a runner.

    Raises:
        UnsupportedSpacesError: as `check_spaces`; the observations are neither a vector nor a stack of frames
            as `adapt` gives them.
    """
    check_spaces(task, actions, observations)
    is_vector = observations.dtype == np.float32 and len(observations.shape or ()) == 1
    is_stack = observations.dtype == np.uint8 and observations.shape == STACK_SHAPES[1]
    if not isinstance(observations, Box) or not (is_vector or is_stack):
        raise UnsupportedSpacesError(
            f"task '{task}' has observations {describe(observations)}, which VECTOR_ENTRY_POINT does not "
            f"adapt: give a vector of float32, or stacks {STACK_SHAPES[1]} of uint8; or use "
            "gym_env_vectorize_mode=SYNC, which builds single environments and adapts them"
        )


def call_creator(create: Callable[..., Any], context: Mapping[str, Any]) -> Any:
    """Build an environment from a class or function, in RLlib's way or in Gymnasium's.

    RLlib's take a config as their first argument, Gymnasium's its entries by name.

    Args:
        create: of either kind.
        context: RLlib's config of the environment.
    """
    return create(context) if _takes_config(create) else create(**context)


def _takes_config(create: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(create).parameters.values()
    except (TypeError, ValueError):  # of what is not written in Python
        return True
    named_only = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    first = next((p for p in parameters if p.kind not in named_only), None)
    if first is None or first.name == "render_mode":
        return False
    is_config = first.default is None or isinstance(first.default, Mapping)
    return is_config or first.default is inspect.Parameter.empty


def _check_reset(env: gymnasium.Env, task: str) -> None:
    """Refuse a `reset` that Gymnasium's wrappers cannot call."""
    try:
        inspect.signature(env.unwrapped.reset).bind(seed=None, options=None)
    except TypeError as error:
        raise UserError(f"task '{task}': reset() {reason(error)}: {_OLD_GYM}") from None


class AdaptedEnv(gymnasium.Wrapper, gymnasium.utils.RecordConstructorArgs):
    """An environment behind `adapt`, whose arguments these are; it observes single frames."""

    def __init__(
        self,
        env: gymnasium.Env,
        task: str,
        seed: int | None,
        limit: int | None,
        cut: bool,
        metric: str,
    ) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(
            self, task=task, seed=seed, limit=limit, cut=cut, metric=metric
        )
        gymnasium.Wrapper.__init__(self, env)
        _check_reset(env, task)
        actions, layout = check_spaces(task, env.action_space, env.observation_space)
        self._actions, self._scale = actions, ActionScale(actions.low, actions.high)
        self.action_space = action_box(actions.shape[0], seed, self._scale)
        self.observation_space = layout.space
        self._task, self._first_seed, self._metric = task, seed, metric
        self._contract = Contract(task, layout, None if cut else limit)
        self._limit = limit if cut and limit is not None else math.inf

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; the first one takes the seed of `adapt` where none is given."""
        seed = self._first_seed if seed is None else seed
        self._first_seed = None
        result: Any = self.env.reset(seed=seed, options=options)
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
            raise UserError(named(self._task, 0, f"reset() gives no (observation, info): {_OLD_GYM}"))
        observation, info = result
        return self._contract.reset(observation), info

    def step(self, action: ArrayLike) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Apply an action (A,) in [-1, 1]."""
        # Rounding can leave the bounds by the last digit.
        control = np.minimum(np.maximum(self._scale(action), self._actions.low), self._actions.high)
        try:
            result: Any = self.env.step(control.astype(self._actions.dtype))
        except ValueError as error:
            if _UNPACKING not in str(error):
                raise
            result = (None,) * 4  # what a wrapper of Gymnasium has stumbled over
        if not isinstance(result, tuple) or len(result) != 5:
            number = len(result) if isinstance(result, tuple) else 1
            what = f"step() gives {number} values, not (observation, reward, terminated, truncated, info)"
            raise UserError(named(self._task, self._contract.steps + 1, f"{what}: {_OLD_GYM}"))
        observation, reward, terminated, truncated, info = result
        truncated = bool(truncated) or self._contract.steps + 1 >= self._limit
        ended = bool(terminated) or truncated
        observation, reward = self._contract.step(observation, reward, ended)
        if self._metric == "success" and ended:
            self._contract.last(info)
        return observation, reward, bool(terminated), truncated, info

    def render(self) -> Any:
        """Return a frame (H, W, 3) uint8.

        Raises:
            UserError: the environment cannot.
        """
        try:
            return self.env.render()
        except UserError:
            raise
        except Exception as error:  # without a display, or a package, renderers raise what they like
            raise UserError(f"task '{self._task}' cannot render: {described(error)}") from error
