"""Play a checkpoint without Ray: `load_agent` acts, `evaluate_checkpoint` plays episodes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from tdmpc_ray.envs import make_env, task_info
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.checkpoint import load_module
from tdmpc_ray.rllib.module import TDMPC2RLModule

_AT_ONCE = 10  # episodes whose plans share one batch


class Agent:
    """A trained module that acts in evaluation mode.

    Attributes:
        task: its name in the catalog, None where it was trained on another environment.
        obs: what it observes, see `make_env`.
    """

    def __init__(self, module: TDMPC2RLModule) -> None:
        self._module = module.eval()
        self.task: str | None = module.model_config["task"]
        self.obs: str = module.model_config.get("obs", "state")

    def act(self, obs: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        """Plan for N environments: obs (N, *obs_shape) and is_first (N,) to actions (N, A) in [-1, 1]."""
        obs_tensor = torch.as_tensor(obs, dtype=torch.float32)
        return self._module.act(obs_tensor, torch.as_tensor(is_first), explore=False).numpy()


def load_agent(path: Path | str, seed: int | None = None, settings: Mapping[str, Any] | None = None) -> Agent:
    """Load the newest checkpoint at or below `path`.

    Args:
        path: a checkpoint, or the folder of a run.
        seed: of the planner; None: another one each time, unless the run had one.
        settings: of the planner, where they shall differ from those of the training.

    Raises:
        UserError: no checkpoint, or a damaged one; unknown settings.
    """
    for key in settings or {}:
        if not key.startswith("planner."):
            raise UserError(f"only settings of the planner can change after the training, not '{key}'")
    module = load_module(Path(path))
    module.agent = module.agent.with_settings(settings or {})
    if seed is not None:
        module.seed(seed)
    return Agent(module)


def evaluate_checkpoint(
    path: Path | str,
    episodes: int = 10,
    seed: int = 0,
    video: Path | str | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Play episodes with the planner in evaluation mode.

    Args:
        path: a checkpoint, or the folder of a run.
        episodes: how many.
        seed: of the environments and the planner.
        video: write the first episode to this mp4 file.
        on_progress: called while playing with the share of the work done, 0 to 1.
        settings: of the planner, where they shall differ from those of the training.

    Returns:
        `task`, and per episode the lists `returns`, `lengths`, `successes` (empty where the task has none).

    Raises:
        UserError: no or damaged checkpoint, an unknown task or setting, no way to render or write a video.
    """
    if episodes < 1:
        raise UserError(f"episodes must be positive, not {episodes}")
    agent = load_agent(path, seed, settings)
    if agent.task is None:
        raise UserError("this checkpoint was trained on an environment that the catalog does not know")
    writer = None if video is None else _video_writer(Path(video))
    num_envs = min(episodes, _AT_ONCE)
    envs = [
        make_env(
            agent.task,
            seed=seed + i,
            render_mode="rgb_array" if writer and i == 0 else None,
            obs=agent.obs,
        )
        for i in range(num_envs)
    ]
    outcome: dict[str, Any] = {"task": agent.task, "returns": [], "lengths": [], "successes": []}
    limit = task_info(agent.task).episode_length
    with contextlib.closing(writer) if writer else contextlib.nullcontext():
        while (missing := episodes - (ended := len(outcome["returns"]))) > 0:
            playing = min(missing, num_envs)
            for step in _play(agent, envs[:playing], outcome, writer):
                on_progress((ended + playing * min(step / limit, 1.0)) / episodes)
            writer = None
    for env in envs:
        env.close()
    return outcome


def _play(agent: Agent, envs: list[gymnasium.Env], outcome: dict[str, Any], writer: Any) -> Iterator[int]:
    """One episode in each environment; those that end early wait, so that none plays more than one.

    Yields the number of steps so far.
    """
    obs = np.stack([env.reset()[0] for env in envs])
    num_envs = len(envs)
    returns, lengths = np.zeros(num_envs), np.zeros(num_envs, int)
    running, is_first = np.ones(num_envs, bool), np.ones(num_envs, bool)
    successes: dict[int, float] = {}
    while running.any():
        actions = agent.act(obs, is_first)
        is_first[:] = False
        for i in np.flatnonzero(running):
            obs[i], reward, terminated, truncated, info = envs[i].step(actions[i])
            returns[i] += float(reward)
            lengths[i] += 1
            running[i] = not (terminated or truncated)
            if "success" in info:
                successes[int(i)] = float(info["success"])
        if writer is not None and running[0]:
            writer.append_data(envs[0].render())
        yield int(lengths.max())
    outcome["returns"] += returns.tolist()
    outcome["lengths"] += lengths.tolist()
    outcome["successes"] += [successes[i] for i in sorted(successes)]


def _video_writer(path: Path) -> Any:
    try:
        import imageio.v2 as imageio
    except ImportError:
        raise UserError("videos need imageio and ffmpeg: pip install 'tdmpc-ray[video]'") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return imageio.get_writer(path, fps=25, macro_block_size=None)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"cannot write the video {path}: {error}") from None
