"""Env runners that come back after their processes have died."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from tdmpc_ray.errors import PassingError, UserError
from tdmpc_ray.rllib.acting.actors import ask_all, ask_the_dead, groups_begun, take_answers

_ASK, _STATE = "back?", "state after a restart"


def take_back(runners: Any) -> list[int]:
    """Runners that Ray has restarted since the last call, in service again.

    RLlib's way asks the dead anew each time, and waits for an answer: 30 s per iteration where a node is gone
    and no other has room. Here a question stays open until there is an answer, and nobody waits.

    Args:
        runners: RLlib's `EnvRunnerGroup`.

    Raises:
        UserError: a runner could not be built again.
    """
    take_answers(runners, _STATE)
    answers = take_answers(runners, _ASK, mark_healthy=True)
    for answer in answers:
        _raise_failure(answer.get())
    ask_the_dead(runners, "ping", _ASK)
    return [answer.actor_id for answer in answers if answer.ok]


def give_state(runners: Any, restored: list[int], state: dict[str, Any]) -> None:
    """Let restarted runners take weights and counters, before whatever they are asked next.

    Args:
        runners: RLlib's `EnvRunnerGroup`.
        restored: what `take_back` gave.
        state: as an env runner's `set_state` takes it.
    """
    runners.foreach_env_runner_async(
        "set_state", tag=_STATE, kwargs={"state": ray.put(state)}, remote_worker_ids=restored
    )


def require_built(runners: Any) -> None:
    """Refuse to begin with env runners that could not be built; RLlib would go on without them.

    Args:
        runners: RLlib's `EnvRunnerGroup`.

    Raises:
        UserError: says why one could not.
    """
    for answer in ask_all(runners, "ping"):
        _raise_failure(answer)


@contextlib.contextmanager
def causes_raised() -> Iterator[None]:
    """Within, RLlib sets an `Algorithm` up; an error tells why that fails, where RLlib's own does not.

    Raises:
        UserError: a learner raised one, or an env runner could not be built, which RLlib ignores until it
            meets an IndexError.
    """
    with groups_begun() as groups:
        try:
            yield
        except Exception as error:
            if isinstance(error, RayTaskError) and isinstance(error.cause, UserError):
                raise error.cause from None  # its own message is the learner's traceback
            for runners in groups:
                require_built(runners)
            raise
        for runners in groups:
            require_built(runners)


def _raise_failure(answer: Any) -> None:
    if isinstance(answer, UserError):
        raise answer
    if isinstance(answer, RayActorError) and answer.actor_init_failed:  # before any code of ours ran
        lines = [line for line in str(answer).splitlines() if line.strip()]
        raise PassingError(f"an env runner cannot be built: {lines[-1].strip()}")
