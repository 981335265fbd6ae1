"""Episodes played by a trained agent: one in each of several environments, whose plans share batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from tdmpc_ray.datasets.episode import EpisodeRecord
from tdmpc_ray.envs import task_info
from tdmpc_ray.envs.faults import FAULTS, MAX_CUT, too_many_cut
from tdmpc_ray.observations import stack
from tdmpc_ray.rllib.acting.task_env import guarded_task
from tdmpc_ray.rllib.checkpoints.own_env import OwnEnv
from tdmpc_ray.rllib.evaluation.loaded_agent import LoadedAgent
from tdmpc_ray.rllib.evaluation.video import Film

_AT_ONCE = 10  # episodes whose plans share one batch


def play(
    agent: LoadedAgent,
    task: str,
    episodes: int,
    seed: int,
    film: Film | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
    record: Path | None = None,
    timeout_s: float | None = None,
    own: OwnEnv | None = None,
) -> dict[str, Any]:
    """Play episodes of one task; the rest as `evaluate_checkpoint`.

    An episode that a fault of the environment has cut is played again.

    Args:
        film: takes the frames of the first episode.
        timeout_s: see `GuardedEnv`.
        own: an environment to play in, that the catalog does not know.

    Raises:
        UserError: faults cut every episode, or the environment does not fit the agent.
    """
    num_envs = min(episodes, _AT_ONCE)
    make = partial(guarded_task, task, obs=agent.obs) if own is None else own.guarded
    envs = [
        make(
            int(np.random.SeedSequence([seed, i]).generate_state(1)[0]),
            timeout_s=timeout_s,
            render_mode="rgb_array" if film and i == 0 else None,
        )
        for i in range(num_envs)
    ]
    outcome: dict[str, Any] = {"task": task, "returns": [], "lengths": [], "successes": [], "faults": []}
    limit, empty_rounds = task_info(task).episode_length if own is None else own.episode_length, 0
    try:
        if own is not None:
            own.require_fit(envs[0], agent._module)
        while (missing := episodes - (ended := len(outcome["returns"]))) > 0:
            if empty_rounds == MAX_CUT:
                raise too_many_cut(outcome["faults"][-1])
            playing = min(missing, num_envs)
            for step in _play(agent, task, envs[:playing], outcome, film, record, seed):
                on_progress((ended + playing * min(step / limit, 1.0)) / episodes)
            empty_rounds = empty_rounds + 1 if len(outcome["returns"]) == ended else 0
            film = None
    finally:
        for env in envs:
            env.close()
    return outcome


def success_of(info: Mapping[str, Any]) -> float | None:
    """Of an episode, by the info of its last step; None where that says nothing."""
    return None if info.get("success") is None else float(info["success"])


def _play(
    agent: LoadedAgent,
    task: str,
    envs: Sequence[gymnasium.Env],
    outcome: dict[str, Any],
    film: Film | None,
    record: Path | None,
    seed: int,
) -> Iterator[int]:
    """One episode in each environment; those that end early wait, so that none plays more than one.

    Yields the number of steps so far.
    """
    starts = [env.reset() for env in envs]
    obs = [first for first, _ in starts]
    outcome["faults"] += [fault for _, info in starts for fault in info.get(FAULTS, ())]
    num_envs = len(envs)
    returns, lengths = np.zeros(num_envs), np.zeros(num_envs, int)
    running, is_first, is_cut = np.ones(num_envs, bool), np.ones(num_envs, bool), np.zeros(num_envs, bool)
    successes: list[float | None] = [None] * num_envs
    records = [EpisodeRecord(first) for first in obs] if record is not None else []
    if film is not None:
        film.take(envs[0])
    while running.any():
        is_filmed = film is not None and running[0]
        actions = agent.act(stack(obs), is_first, task)
        is_first[:] = False
        for i in np.flatnonzero(running):
            obs[i], reward, terminated, truncated, info = envs[i].step(actions[i])
            if FAULTS in info:
                outcome["faults"] += info[FAULTS]
                running[i], is_cut[i] = False, True
                continue
            returns[i] += float(reward)
            lengths[i] += 1
            running[i] = not (terminated or truncated)
            if not running[i]:
                successes[i] = success_of(info)
            if record is not None:
                records[i].add(obs[i], actions[i], float(reward))
                if not running[i]:
                    number = len(outcome["returns"]) + np.count_nonzero(~running & ~is_cut) - 1
                    file = f"{file_name(task)}-seed{seed}-{number:04d}.npz"
                    success = None if (said := success_of(info)) is None else said > 0
                    records[i].save(record / file, terminated=terminated, task=task, success=success)
        if film is not None and is_filmed and not is_cut[0]:
            film.take(envs[0])
        yield int(lengths.max())
    outcome["returns"] += returns[~is_cut].tolist()
    outcome["lengths"] += lengths[~is_cut].tolist()
    outcome["successes"] += [successes[i] for i in np.flatnonzero(~is_cut)]


def file_name(task: str) -> str:
    return task.replace(":", "_").replace("/", "_")
