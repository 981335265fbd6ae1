"""Play a checkpoint without Ray: `load_agent` acts, `evaluate_checkpoint` plays episodes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from tdmpc_ray.core.demonstrations import EpisodeRecord
from tdmpc_ray.envs import task_info
from tdmpc_ray.envs.faults import FAULTS, MAX_CUT, too_many_cut
from tdmpc_ray.errors import UserError, reason
from tdmpc_ray.observations import stack
from tdmpc_ray.rllib import stop_request
from tdmpc_ray.rllib.agent import Agent, load_agent
from tdmpc_ray.rllib.at_hand import at_hand
from tdmpc_ray.rllib.checkpoint import find_checkpoint, networks_of_newest
from tdmpc_ray.rllib.own_env import OwnEnv, own_env
from tdmpc_ray.rllib.task_env import guarded_task
from tdmpc_ray.rllib.video import Film

logger = logging.getLogger(__name__)

_AT_ONCE = 10  # episodes whose plans share one batch


def evaluate_checkpoint(
    path: Path | str,
    episodes: int = 10,
    seed: int = 0,
    video: Path | str | None = None,
    grid: Path | str | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
    settings: Mapping[str, Any] | None = None,
    task: str | None = None,
    record: Path | str | None = None,
    timeout_s: float | None = None,
    env: Any = None,
) -> dict[str, Any]:
    """Play episodes with the planner in evaluation mode.

    Args:
        path: a checkpoint, or the folder of a run; or the address of one.
        episodes: how many.
        seed: of the environments and the planner.
        video: film the first episode into this mp4 file.
        grid: draw frames of the first episode into this PNG file.
        on_progress: called while playing with the share of the work done, 0 to 1.
        settings: of the planner, where they shall differ from those of the training.
        task: which one, of an agent that knows several.
        record: write each episode into this folder, for `data.demonstrations`.
        timeout_s: see `GuardedEnv`.
        env: an environment to play in instead of the run's: a class or function, or `MODULE:CLASS`.

    Returns:
        `task`, per episode the lists `returns`, `lengths`, `successes` (None where the task says none), and
        `faults`: what went wrong in episodes that were played again.

    Raises:
        UserError: no or damaged checkpoint, an unknown task or setting, an environment that cannot be built
            here or does not fit, no way to render or write a video.
    """
    if episodes < 1:
        raise UserError(f"episodes must be positive, not {episodes}")
    with at_hand(path, networks_of_newest) as local:
        agent = load_agent(local, seed, settings)
        name = _task_to_play(agent, task)
        own = own_env(find_checkpoint(local), name, env) if name is None or env is not None else None
    if own is not None and agent.tasks:
        raise UserError("--env is for agents of one task: this one knows several")
    name = str(name) if own is None else name or own.name
    folder = None if record is None else Path(record)
    if video is None and grid is None:
        return play(agent, name, episodes, seed, None, on_progress, folder, timeout_s, own)
    with Film(*(None if file is None else Path(file) for file in (video, grid))) as film:
        return play(agent, name, episodes, seed, film, on_progress, folder, timeout_s, own)


def _task_to_play(agent: Agent, task: str | None) -> str | None:
    """By its name in the catalog; None: the agent was trained on another environment."""
    known = agent.tasks or ((agent.task,) if agent.task is not None else ())
    if not known and task is None:
        return None
    name = task_info(task).name if task is not None else known[0]
    if name not in known or (task is None and len(known) > 1):
        ask = "say with --task which one to play; " if len(known) > 1 else ""
        knows = ", ".join(known) or "no task of the catalog, but an environment of your own"
        raise UserError(f"{ask}this agent knows: {knows}")
    return name


def film_episode(path: Path, task: str, folder: Path, timeout_s: float | None = None) -> None:
    """Film an episode of a checkpoint into `folder/TASK.mp4`, with frames of it in `folder/TASK.png`.

    What goes wrong is logged: a film is no reason to lose a trained agent. No half film is left.

    Args:
        path: of the checkpoint.
        task: which one to play.
        folder: of the two files.
        timeout_s: see `GuardedEnv`.

    Raises:
        EvaluationStopped: the study is to stop.
    """
    mp4, grid = (folder / f"{_file_name(task)}{suffix}" for suffix in (".mp4", ".png"))
    watch: dict[str, Any] = {"timeout_s": timeout_s, "on_progress": stop_request.check}
    try:
        evaluate_checkpoint(path, 1, video=mp4, grid=grid, task=task, **watch)
    except Exception as error:
        for file in (mp4, grid):
            file.unlink(missing_ok=True)
        if isinstance(error, stop_request.EvaluationStopped):
            raise
        logger.warning("no film of '%s': %s", task, reason(error))


def play(
    agent: Agent,
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
    agent: Agent,
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
                    file = f"{_file_name(task)}-seed{seed}-{number:04d}.npz"
                    records[i].save(record / file, terminated=terminated, task=task)
        if film is not None and is_filmed and not is_cut[0]:
            film.take(envs[0])
        yield int(lengths.max())
    outcome["returns"] += returns[~is_cut].tolist()
    outcome["lengths"] += lengths[~is_cut].tolist()
    outcome["successes"] += [successes[i] for i in np.flatnonzero(~is_cut)]


def _file_name(task: str) -> str:
    return task.replace(":", "_").replace("/", "_")
