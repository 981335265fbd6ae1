"""Checkpoints that play without Ray: `evaluate_checkpoint`, and a film of an episode."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tdmpc_ray.envs import task_info
from tdmpc_ray.errors import UserError, reason
from tdmpc_ray.rllib.acting import stop_request
from tdmpc_ray.rllib.checkpoints.at_hand import at_hand
from tdmpc_ray.rllib.checkpoints.load import find_checkpoint, networks_of_newest
from tdmpc_ray.rllib.checkpoints.own_env import own_env
from tdmpc_ray.rllib.evaluation.episodes import file_name, play
from tdmpc_ray.rllib.evaluation.loaded_agent import LoadedAgent, load_agent
from tdmpc_ray.rllib.evaluation.video import Film

logger = logging.getLogger(__name__)


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


def _task_to_play(agent: LoadedAgent, task: str | None) -> str | None:
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
    mp4, grid = (folder / f"{file_name(task)}{suffix}" for suffix in (".mp4", ".png"))
    watch: dict[str, Any] = {"timeout_s": timeout_s, "on_progress": stop_request.check}
    try:
        evaluate_checkpoint(path, 1, video=mp4, grid=grid, task=task, **watch)
    except Exception as error:
        for file in (mp4, grid):
            file.unlink(missing_ok=True)
        if isinstance(error, stop_request.EvaluationStopped):
            raise
        logger.warning("no film of '%s': %s", task, reason(error))
