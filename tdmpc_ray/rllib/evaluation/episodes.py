"""Episodes played by a trained module: one in each of several environments, whose plans share batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F

from tdmpc_ray.core.batch import ImageAndVector
from tdmpc_ray.core.replay.demonstrations import EpisodeRecord
from tdmpc_ray.envs import task_info
from tdmpc_ray.envs.faults import FAULTS, MAX_CUT, too_many_cut
from tdmpc_ray.observations import ObsArray, map_parts, parts_of, stack
from tdmpc_ray.rllib.acting.module import AgentModule
from tdmpc_ray.rllib.acting.task_env import guarded_task
from tdmpc_ray.rllib.evaluation.video import Film

_AT_ONCE = 10  # episodes whose plans share one batch


class LoadedAgent:
    """A trained module that acts in evaluation mode.

    Attributes:
        task: its name in the catalog, None where it was trained on another environment.
        tasks: names of a set's tasks, in the order of their ids.
        obs: what it observes, see `make_env`.
    """

    def __init__(self, module: AgentModule) -> None:
        self._module = module.eval()
        self.task: str | None = module.model_config["task"]
        self.tasks = () if self.task is None else task_info(self.task).tasks
        self.obs: str = module.model_config.get("obs", "state")

    def act(self, obs: ObsArray, is_first: np.ndarray, task: str | None = None) -> np.ndarray:
        """Plan for N environments.

        Args:
            obs: (N, *obs_shape), or a dict of images and vectors; of a set's task as the task gives them.
            is_first: the environments that have just been reset, (N,).
            task: which one of a set they play.

        Returns:
            Actions in [-1, 1], (N, A); of a set's task as many numbers as it takes.
        """
        model = self._module.networks
        device = model.device
        first = torch.as_tensor(is_first, device=device)
        seen, vector = parts_of(map_parts(lambda part: torch.as_tensor(part, device=device).float(), obs))
        if not self.tasks:
            observation = seen if vector is None else ImageAndVector(seen, vector)
            return self._module.act(observation, first, explore=False).cpu().numpy()
        assert task is not None
        task_id = self.tasks.index(task)
        padded = F.pad(seen, (0, model.obs_shape[0] - seen.shape[-1]))
        ids = torch.full((len(first),), task_id, device=device)
        actions = self._module.act(padded, first, ids, explore=False).cpu().numpy()
        return actions[:, : int(model.action_masks[task_id].sum())]


def play(
    agent: LoadedAgent,
    task: str,
    episodes: int,
    seed: int,
    film: Film | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
    record: Path | None = None,
    timeout_s: float | None = None,
) -> dict[str, Any]:
    """Play episodes of one task; the rest as `evaluate_checkpoint`.

    An episode that a fault of the environment has cut is played again.

    Args:
        film: takes the frames of the first episode.
        timeout_s: see `GuardedEnv`.

    Raises:
        UserError: faults cut every episode.
    """
    num_envs = min(episodes, _AT_ONCE)
    envs = [
        guarded_task(
            task,
            int(np.random.SeedSequence([seed, i]).generate_state(1)[0]),
            timeout_s=timeout_s,
            render_mode="rgb_array" if film and i == 0 else None,
            obs=agent.obs,
        )
        for i in range(num_envs)
    ]
    outcome: dict[str, Any] = {"task": task, "returns": [], "lengths": [], "successes": [], "faults": []}
    limit, empty_rounds = task_info(task).episode_length, 0
    try:
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
                    records[i].save(record / file, terminated=terminated, task=task)
        if film is not None and is_filmed and not is_cut[0]:
            film.take(envs[0])
        yield int(lengths.max())
    outcome["returns"] += returns[~is_cut].tolist()
    outcome["lengths"] += lengths[~is_cut].tolist()
    outcome["successes"] += [successes[i] for i in np.flatnonzero(~is_cut)]


def file_name(task: str) -> str:
    return task.replace(":", "_").replace("/", "_")
